import { NativeError } from '../../native/error.js';
import type { NumberedDescriptor } from '../../transport/numbered-descriptors.js';

/** Milliseconds between attempts to pass what a worker does not take. */
const retryInterval = 5;

/** Whose descriptors a passage passes. */
export interface PassageSource {
  /** Those of the next message; none when nothing is to be passed. Asked again for each attempt. */
  next(): readonly NumberedDescriptor[];
  /** Those it was asked for last are on their way. */
  onPassed(): void;
  /** The worker can have none any more. */
  onBroken(): void;
}

/**
 * Passes descriptors to one worker: at the end of the turn of the event loop in which they came,
 * and again after a while when the worker has to take earlier ones first.
 */
export class Passage {
  private soon: NodeJS.Immediate | null = null;
  private retry: NodeJS.Timeout | null = null;

  /** `pass` says whether the worker takes them now, and throws NativeError when it is gone. */
  constructor(
    private readonly pass: (descriptors: readonly NumberedDescriptor[]) => boolean,
    private readonly source: PassageSource,
  ) {}

  /** There is something to pass. */
  wake(): void {
    if (this.retry === null) this.soon ??= setImmediate(() => this.run());
  }

  /** The worker is gone. */
  end(): void {
    if (this.soon !== null) clearImmediate(this.soon);
    if (this.retry !== null) clearTimeout(this.retry);
    this.soon = this.retry = null;
  }

  private run(): void {
    this.soon = this.retry = null;
    const descriptors = this.source.next();
    if (descriptors.length === 0) return;
    try {
      if (!this.pass(descriptors)) {
        this.retry = setTimeout(() => this.run(), retryInterval);
        return;
      }
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      this.source.onBroken();
      return;
    }
    this.source.onPassed();
  }
}
