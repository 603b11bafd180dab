import type { ByteStream } from './byte-stream.js';

/** Reading from a stream stops while there is at least one reason to hold it. */
export class ReadGate {
  private readonly reasons = new Set<unknown>();

  constructor(private readonly stream: ByteStream) {}

  get isClosed(): boolean {
    return this.reasons.size > 0;
  }

  close(reason: unknown): void {
    if (this.reasons.size === 0) this.stream.pause();
    this.reasons.add(reason);
  }

  open(reason: unknown): void {
    if (this.reasons.delete(reason) && this.reasons.size === 0) this.stream.resume();
  }
}
