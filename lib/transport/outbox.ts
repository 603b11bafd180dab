import { closeDescriptors } from '../native/descriptors.js';
import type { ByteStream } from './byte-stream.js';

/** Whoever writes frames into an outbox; used to tell writers apart. */
export type Sender = object;

/**
 * The frames on their way into one stream. Frames that lie side by side in a chunk become one
 * write, unless the stream wants each by itself; a large frame whose bytes are still arriving is
 * never torn apart by another sender's frames.
 */
export class Outbox {
  private run: Buffer | null = null;
  private runStart = 0;
  private runEnd = 0;
  /** The sender in the middle of a large frame. */
  private holder: Sender | null = null;
  /**
   * Frames of other senders, copied, and their descriptors, until the large frame is through.
   * Senders stop reading meanwhile.
   */
  private deferred: (Buffer | number[])[] = [];
  private waiting = 0;
  private written = 0;

  constructor(private readonly stream: ByteStream) {}

  /** Bytes that the stream's peer has not taken yet. */
  get queuedBytes(): number {
    return this.stream.queuedBytes;
  }

  /** Bytes given to the stream so far. */
  get writtenBytes(): number {
    return this.written;
  }

  /** Bytes that wait for another sender's large frame to be through. */
  get deferredBytes(): number {
    return this.waiting;
  }

  /** Whether a large frame of another sender is in the way. */
  isBlockedFor(sender: Sender): boolean {
    return this.holder !== null && this.holder !== sender;
  }

  /**
   * Adds a frame, or a part of a large one, that lies in `bytes`; `flush()` must follow before they
   * change.
   */
  forward(sender: Sender, bytes: Buffer, start: number, end: number): void {
    if (this.isBlockedFor(sender)) {
      this.defer(Buffer.from(bytes.subarray(start, end)));
      return;
    }
    if (this.run === bytes && this.runEnd === start && !this.stream.separatesFrames) {
      this.runEnd = end;
      return;
    }
    this.flush();
    this.run = bytes;
    this.runStart = start;
    this.runEnd = end;
  }

  /** Sends a frame that was made for it. */
  send(sender: Sender, frame: Buffer): void {
    if (this.isBlockedFor(sender)) {
      this.defer(frame);
      return;
    }
    this.flush();
    this.write(frame, 0, frame.length);
  }

  /** Whether `sendDescriptors` may be called. */
  get passesDescriptors(): boolean {
    return this.stream.passage !== null;
  }

  /**
   * Sends the descriptors of the frame that the sender sent last; they belong to the outbox from
   * now on.
   */
  sendDescriptors(sender: Sender, descriptors: number[]): void {
    if (descriptors.length === 0) return;
    if (this.isBlockedFor(sender)) {
      this.deferred.push(descriptors);
      return;
    }
    this.flush();
    const { passage } = this.stream;
    if (passage === null) closeDescriptors(descriptors);
    else passage.send(descriptors);
  }

  /** Drops what has not been given to the stream. */
  discard(): void {
    this.run = null;
    this.waiting = 0;
    for (const item of this.deferred.splice(0)) if (!Buffer.isBuffer(item)) closeDescriptors(item);
  }

  /** Claims the outbox for a large frame; false while another sender's is under way. */
  claim(sender: Sender): boolean {
    if (this.isBlockedFor(sender)) return false;
    this.holder = sender;
    return true;
  }

  /** Ends the claim after the large frame's last byte. */
  release(): void {
    this.holder = null;
    this.flush();
    this.waiting = 0;
    for (const item of this.deferred.splice(0)) {
      if (Buffer.isBuffer(item)) this.write(item, 0, item.length);
      else this.stream.passage?.send(item);
    }
  }

  private defer(frame: Buffer): void {
    this.deferred.push(frame);
    this.waiting += frame.length;
  }

  /** Hands the collected run to the stream. */
  flush(): void {
    const { run } = this;
    if (run === null) return;
    this.run = null;
    this.write(run, this.runStart, this.runEnd);
  }

  private write(bytes: Buffer, start: number, end: number): void {
    this.written += end - start;
    this.stream.write(bytes, start, end);
  }
}
