import { closeDescriptors } from '../../native/descriptors.js';
import type { ReadGate } from '../../transport/read-gate.js';

/** At this many the client is no longer read, until half of them have gone. */
const maxKept = 128;

/**
 * The descriptors of a client's calls that are on their way to a daemon, by the calls' serial
 * numbers.
 */
export class CallDescriptors {
  private readonly kept = new Map<number, number[]>();
  private count = 0;

  constructor(private readonly gate: ReadGate) {}

  get isEmpty(): boolean {
    return this.kept.size === 0;
  }

  /**
   * Owns the descriptors from now on, unless it returns false: another call of that number has
   * some.
   */
  keep(serial: number, descriptors: number[]): boolean {
    if (this.kept.has(serial)) return false;
    this.kept.set(serial, descriptors);
    this.count += descriptors.length;
    if (this.count >= maxKept) this.gate.close(this);
    return true;
  }

  /** The taker owns them from now on. */
  take(serial: number): number[] {
    const descriptors = this.kept.get(serial) ?? [];
    this.kept.delete(serial);
    this.count -= descriptors.length;
    if (this.count <= maxKept / 2) this.gate.open(this);
    return descriptors;
  }

  clear(): void {
    for (const descriptors of this.kept.values()) closeDescriptors(descriptors);
    this.kept.clear();
    this.count = 0;
  }
}
