import { createConnection, Socket, type OnReadOpts } from 'node:net';
import { hasHungUp } from '../native/hang-up.js';
import { raiseSendBuffer } from '../native/send-buffer.js';
import { sendNow } from '../native/send-now.js';
import { closingPatience, type ByteStream, type StreamListener } from './byte-stream.js';
import type { DescriptorPassage } from './descriptor-passage.js';
import { readBuffer } from './read-buffer.js';
import { SocketPassage } from './socket-passage.js';

/**
 * What a UNIX socket may queue, in the kernel's way of counting, once a write did not fit: two of
 * the frames of 256 KiB in which libvirt sends a volume. TCP sets its own.
 */
const raisedSendBuffer = 512 * 1024;

/**
 * A connection as a handle of node's, before a Socket was made of it; so it can be handed to
 * another process.
 */
export interface SocketHandle {
  readonly fd: number;
  close(): void;
}

/** The handle inside a socket. Node's types do not name it. */
export function handleOf(socket: Socket): SocketHandle {
  return (socket as unknown as { readonly _handle: SocketHandle })._handle;
}

/** Whether the other end of a socket will send no more. */
export function isLeft(socket: Socket): boolean {
  return socket.destroyed || hasHungUp(handleOf(socket).fd);
}

/** Makes node's own Socket of an accepted connection, as its servers do. */
export function socketOf(handle: SocketHandle): Socket {
  // Node's types do not name `handle`.
  return new Socket({ handle, allowHalfOpen: true } as never);
}

/** Sends what is queued, for `closingPatience` at most, then closes. */
export function endInTime(socket: Socket): void {
  const force = setTimeout(() => socket.destroy(), closingPatience).unref();
  socket.end(() => {
    clearTimeout(force);
    socket.destroy();
  });
}

/**
 * A UNIX or TCP socket as ByteStream. What the kernel takes at once goes to it straight from the
 * caller's bytes; node's own queue, which costs more than the system call itself, sees only the
 * rest.
 */
export class SocketStream implements ByteStream {
  readonly separatesFrames = false;
  private listener: StreamListener | null = null;
  private isRaised = false;
  /** The socket's number while it is open. */
  readonly fd: number;
  /** Made when it is asked for. */
  private socketPassage: SocketPassage | null = null;

  /** The socket must be connected. Node's sockets never block. */
  private constructor(
    private readonly socket: Socket,
    private readonly passesDescriptors: boolean,
  ) {
    this.fd = handleOf(socket).fd;
    const closed = (error: Error | null): void => {
      const { listener } = this;
      this.listener = null;
      listener?.closed(error);
    };
    socket.on('drain', () => this.listener?.drained());
    socket.on('end', () => closed(null));
    socket.on('error', closed);
    socket.on('close', () => {
      this.socketPassage?.discard();
      closed(null);
    });
  }

  /**
   * Makes a stream of an accepted connection. It does not read before `listen()`, and passes
   * descriptors only if told to.
   */
  static accepted(handle: SocketHandle, passesDescriptors = false): SocketStream {
    const reader = new Reader();
    // `handle` is how node's own server makes a Socket of an accepted connection; its types do not
    // name it.
    const options = { handle, pauseOnCreate: true, onread: reader.options };
    const stream = new SocketStream(new Socket(options as never), passesDescriptors);
    reader.stream = stream;
    return stream;
  }

  /** Makes a stream of a connection to a UNIX socket, a descriptor that is the stream's then. */
  static opened(fd: number): SocketStream {
    const reader = new Reader();
    const options = { fd, pauseOnCreate: true, onread: reader.options };
    const stream = new SocketStream(new Socket(options), true);
    reader.stream = stream;
    return stream;
  }

  /**
   * Connects to the UNIX socket at `path`. Rejects with the system's error, or the signal's reason.
   */
  static async connect(path: string, signal: AbortSignal): Promise<SocketStream> {
    signal.throwIfAborted();
    const reader = new Reader();
    const socket = createConnection({ path, onread: reader.options });
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        socket.off('connect', connected);
        socket.off('error', settle);
        signal.removeEventListener('abort', aborted);
        if (error === undefined) {
          resolve();
        } else {
          socket.destroy();
          reject(error);
        }
      };
      const connected = (): void => settle();
      const aborted = (): void => settle(signal.reason as Error);
      socket.once('connect', connected);
      socket.once('error', settle);
      signal.addEventListener('abort', aborted);
    });
    socket.pause();
    const stream = new SocketStream(socket, true);
    reader.stream = stream;
    return stream;
  }

  get queuedBytes(): number {
    return this.socket.writableLength + (this.socketPassage?.queuedBytes ?? 0);
  }

  get passage(): DescriptorPassage | null {
    if (!this.passesDescriptors) return null;
    return (this.socketPassage ??= new SocketPassage(this.socket, () => this.listener?.drained()));
  }

  get isLeft(): boolean {
    return isLeft(this.socket);
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
    this.socket.resume();
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    const { socket } = this;
    if (!socket.writable) return;
    if (this.socketPassage?.isSending === true) {
      this.socketPassage.write(Buffer.from(bytes.subarray(start, end)));
      return;
    }
    const next = socket.writableLength > 0 ? start : this.sendNow(bytes, start, end);
    if (next < end) socket.write(Buffer.from(bytes.subarray(next, end)));
  }

  /** What the kernel takes at once, up to the index returned. */
  private sendNow(bytes: Buffer, start: number, end: number): number {
    const next = start + sendNow(this.fd, bytes, start, end);
    if (next === end || this.isRaised || !this.passesDescriptors) return next;
    this.isRaised = true;
    raiseSendBuffer(this.fd, raisedSendBuffer);
    return next + sendNow(this.fd, bytes, next, end);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  end(): void {
    this.listener = null;
    if (this.socketPassage?.isSending === true) this.socketPassage.endBehind(endInTime);
    else endInTime(this.socket);
  }

  destroy(): void {
    this.listener = null;
    this.socket.destroy();
  }

  /** For the readers only. */
  received(buffer: Buffer, length: number): void {
    this.listener?.bytes(buffer, length);
  }
}

/** Node wants the read callback before there is a socket to make a stream of. */
class Reader {
  stream: SocketStream | null = null;
  readonly options: OnReadOpts = {
    buffer: readBuffer,
    callback: (length) => {
      this.stream?.received(readBuffer, length);
      return true;
    },
  };
}
