import { headerLength, maxFrameLength } from './frame.js';

/**
 * A frame longer than this many bytes is passed on as its bytes arrive and never collected whole.
 */
export const collectLimit = 256 * 1024;

/**
 * What a framer tells about the bytes it was given. `bytes` belongs to the caller of `push`: what a
 * sink wants to keep beyond the call it copies.
 */
export interface FrameSink {
  /** A whole frame lies in `bytes` from `start`, `length` bytes long. */
  frame(bytes: Buffer, start: number, length: number): void;
  /**
   * The header of a frame above `collectLimit` lies in `bytes` from `start`; its bytes follow
   * through `largeBytes`, the header first. `false` suspends the framer until `resume()`, which
   * asks again.
   */
  largeFrame(bytes: Buffer, start: number, length: number): boolean;
  /** The next bytes of the large frame; `last` with its final ones. */
  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void;
}

/**
 * The peer announced a frame no peer may send. The connection cannot go on: where the next frame
 * starts is unknown.
 */
export class FrameLengthError extends Error {
  readonly code = 'FRAME_LENGTH';
  constructor(
    readonly length: number,
    readonly limit: number,
  ) {
    super(
      `announced a frame of ${length} bytes, allowed are ${headerLength} to ${limit} at this point`,
    );
  }
}

const nothing = Buffer.alloc(0);

/**
 * Cuts a byte stream into frames. Frames that lie whole in a chunk are handed out where they are; a
 * partial one is collected in memory that grows with the bytes that arrived, never with the length
 * they announce.
 */
export class Framer {
  /** Longest frame in bytes accepted; may be changed between frames. */
  limit: number;
  /**
   * Bytes of an unfinished frame; from 0 to `heldEnd`. Replaced, never rewritten, once handed out.
   */
  private held = nothing;
  private heldEnd = 0;
  /** Bytes of the current large frame still to come. */
  private largeLeft = 0;
  private suspended = false;
  private stopped = false;

  constructor(
    private sink: FrameSink,
    limit: number = maxFrameLength,
  ) {
    this.limit = limit;
  }

  /** Inside a frame whose first bytes have been handed out or are held. */
  get midFrame(): boolean {
    return this.largeLeft > 0 || this.heldEnd > 0;
  }

  /** Inside a large frame whose first bytes have been handed out. */
  get midLargeFrame(): boolean {
    return this.largeLeft > 0;
  }

  /** Bytes that arrived and were not handed out yet. */
  get heldBytes(): Buffer {
    return this.held.subarray(0, this.heldEnd);
  }

  /** Bytes of a large frame that are still to come. */
  get largeBytesLeft(): number {
    return this.largeLeft;
  }

  /** Waiting for `resume()`; bytes pushed meanwhile are kept, so the source should be paused. */
  get isSuspended(): boolean {
    return this.suspended;
  }

  /** Tells another sink from now on, even if this one is being told of something. */
  redirect(sink: FrameSink): void {
    this.sink = sink;
  }

  /** Takes the next bytes of the stream, the first `end` of `bytes`. Throws FrameLengthError. */
  push(bytes: Buffer, end = bytes.length): void {
    if (this.stopped) return;
    if (this.suspended) this.hold(bytes, 0, end);
    else if (this.heldEnd > 0) this.continueHeld(bytes, end);
    else this.cut(bytes, 0, end);
  }

  /**
   * Asks `largeFrame` again after it had refused; false when it refuses still. Throws
   * FrameLengthError.
   */
  resume(): boolean {
    if (!this.suspended || this.stopped) return true;
    this.suspended = false;
    const bytes = this.held.subarray(0, this.heldEnd);
    this.forget();
    this.cut(bytes, 0, bytes.length);
    return !this.isSuspended;
  }

  /** Drops everything held and ignores what comes; may be called from within the sink. */
  stop(): void {
    this.stopped = true;
    this.forget();
  }

  private cut(bytes: Buffer, start: number, end: number): void {
    while (start < end && !this.stopped) {
      if (this.largeLeft > 0) {
        start = this.passLarge(bytes, start, end);
        continue;
      }
      if (end - start < 4) break;
      const length = this.checkedLength(bytes, start);
      if (length <= collectLimit) {
        if (end - start < length) break;
        this.sink.frame(bytes, start, length);
        start += length;
      } else {
        if (end - start < headerLength) break;
        if (!this.sink.largeFrame(bytes, start, length)) {
          this.suspended = true;
          break;
        }
        this.largeLeft = length;
      }
    }
    if (start < end && !this.stopped) this.hold(bytes, start, end);
  }

  private passLarge(bytes: Buffer, start: number, end: number): number {
    const next = Math.min(end, start + this.largeLeft);
    this.largeLeft -= next - start;
    this.sink.largeBytes(bytes, start, next, this.largeLeft === 0);
    return next;
  }

  /**
   * Completes the held frame with just the bytes it lacks, so that the rest of the chunk is used in
   * place.
   */
  private continueHeld(bytes: Buffer, end: number): void {
    let used = 0;
    if (this.heldEnd < 4) {
      used = Math.min(4 - this.heldEnd, end);
      this.hold(bytes, 0, used);
      if (this.heldEnd < 4) return;
    }
    const length = this.checkedLength(this.held, 0);
    const wanted = length <= collectLimit ? length : headerLength;
    const more = Math.min(Math.max(wanted - this.heldEnd, 0), end - used);
    this.hold(bytes, used, used + more);
    used += more;
    if (this.heldEnd < wanted) return;
    const whole = this.held.subarray(0, this.heldEnd);
    this.forget();
    this.cut(whole, 0, whole.length);
    if (this.stopped) return;
    if (this.suspended) this.hold(bytes, used, end);
    else this.cut(bytes, used, end);
  }

  private checkedLength(bytes: Buffer, start: number): number {
    const length = bytes.readUInt32BE(start);
    if (length < headerLength || length > this.limit) {
      this.stop();
      throw new FrameLengthError(length, this.limit);
    }
    return length;
  }

  private hold(bytes: Buffer, start: number, end: number): void {
    const needed = this.heldEnd + end - start;
    if (needed > this.held.length) {
      const grown = Buffer.allocUnsafeSlow(
        Math.max(needed, 64, Math.floor(this.held.length * 1.5)),
      );
      this.held.copy(grown, 0, 0, this.heldEnd);
      this.held = grown;
    }
    bytes.copy(this.held, this.heldEnd, start, end);
    this.heldEnd = needed;
  }

  private forget(): void {
    this.held = nothing;
    this.heldEnd = 0;
  }
}
