import type { Socket } from 'node:net';
import { closeDescriptors } from '../native/descriptors.js';
import { closingPatience } from './byte-stream.js';
import type { DescriptorPassage, DescriptorReceiver } from './descriptor-passage.js';
import { readDescriptors, type ReadableHandle } from './descriptor-reader.js';
import { DescriptorSender } from './descriptor-sender.js';

/** Passes descriptors over a UNIX socket beside the bytes that node reads and writes. */
export class SocketPassage implements DescriptorPassage {
  private onSent: () => void;
  private sender: DescriptorSender | null = null;

  /** `onSent` is called each time all that waited is with the socket. */
  constructor(
    private readonly socket: Socket,
    onSent: () => void,
  ) {
    this.onSent = onSent;
  }

  /** Whether bytes must go through `write`, so that they do not overtake descriptors. */
  get isSending(): boolean {
    return this.sender?.isBusy === true;
  }

  get queuedBytes(): number {
    return this.sender?.queuedBytes ?? 0;
  }

  receive(receiver: DescriptorReceiver): void {
    readDescriptors(this.socket, this.handle, receiver);
  }

  send(descriptors: number[]): void {
    if (this.socket.writable) (this.sender ??= this.makeSender()).send(descriptors);
    else closeDescriptors(descriptors);
  }

  /** Sends bytes behind the descriptors that wait. */
  write(bytes: Buffer): void {
    this.sender?.write(bytes);
  }

  /**
   * Calls `end` when all that waits is with the socket; closes it when that takes longer than
   * `closingPatience`.
   */
  endBehind(end: (socket: Socket) => void): void {
    const { socket } = this;
    setTimeout(() => socket.destroy(), closingPatience).unref();
    this.onSent = () => end(socket);
  }

  /** Closes descriptors that wait. */
  discard(): void {
    this.sender?.discard();
  }

  private get handle(): ReadableHandle {
    return (this.socket as unknown as { readonly _handle: ReadableHandle })._handle;
  }

  private makeSender(): DescriptorSender {
    const { socket, handle } = this;
    return new DescriptorSender({
      get fd() {
        return handle.fd;
      },
      get unsentBytes() {
        return socket.writableLength;
      },
      write: (bytes) => {
        if (socket.writable) socket.write(bytes);
      },
      drained: () => this.onSent(),
      failed: (error) => socket.destroy(error),
    });
  }
}
