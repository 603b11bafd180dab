import type { ReadGate } from '../../transport/read-gate.js';

/** At either bound the client is no longer read, until half of what is held has gone. */
const maxBytes = 1024 * 1024;
const maxCalls = 4096;

/** A client's calls that wait for their turn, oldest first, in copies of their own. */
export class HeldCalls {
  private frames: Buffer[] = [];
  private first = 0;
  private bytes = 0;

  constructor(private readonly gate: ReadGate) {}

  get size(): number {
    return this.frames.length - this.first;
  }

  get isEmpty(): boolean {
    return this.first === this.frames.length;
  }

  /** Keeps a copy of `frame`. */
  add(frame: Buffer): void {
    this.frames.push(Buffer.from(frame));
    this.bytes += frame.length;
    if (this.bytes >= maxBytes || this.size >= maxCalls) this.gate.close(this);
  }

  /** Takes the oldest; there must be one. */
  next(): Buffer {
    const frame = this.frames[this.first];
    if (frame === undefined) throw new Error('no call is held');
    this.first++;
    this.bytes -= frame.length;
    if (this.isEmpty || this.first > maxCalls) {
      this.frames = this.frames.slice(this.first);
      this.first = 0;
    }
    if (this.bytes <= maxBytes / 2 && this.size <= maxCalls / 2) this.gate.open(this);
    return frame;
  }

  clear(): void {
    this.frames = [];
    this.first = 0;
    this.bytes = 0;
  }
}
