import type { FrameSink } from '../../lib/rpc/framer.js';

/** Keeps copies of what a framer hands out; large frames are joined again. */
export class RecordingSink implements FrameSink {
  /** The frames that are complete, in order. */
  readonly frames: Buffer[] = [];
  /** The length announced at every call of `largeFrame`. */
  readonly asked: number[] = [];
  /** Bytes handed out by `largeBytes` so far. */
  largeBytesSeen = 0;
  /** What `largeFrame` answers. */
  accepts = true;
  private parts: Buffer[] = [];

  frame(bytes: Buffer, start: number, length: number): void {
    this.frames.push(Buffer.from(bytes.subarray(start, start + length)));
  }

  largeFrame(bytes: Buffer, start: number, length: number): boolean {
    if (bytes.readUInt32BE(start) !== length) throw new Error('no header at the start');
    this.asked.push(length);
    return this.accepts;
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    this.largeBytesSeen += end - start;
    this.parts.push(Buffer.from(bytes.subarray(start, end)));
    if (!last) return;
    this.frames.push(Buffer.concat(this.parts));
    this.parts = [];
  }
}
