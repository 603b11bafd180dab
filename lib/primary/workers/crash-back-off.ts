/** Seconds to wait before the replacement for the nth crash in a row; beyond the last, the last. */
const delays = [0, 1, 2, 4, 8, 16, 30];

/** Seconds without a crash after which the next one counts as the first. */
const quietTime = 60;

/**
 * How long a crashed worker's replacement waits: not at all the first time, then longer and longer,
 * so that a worker that always crashes costs little.
 */
export class CrashBackOff {
  private crashes = 0;
  private last = -Infinity;

  /**
   * Counts a crash at `now` (seconds of any steady clock) and gives the seconds its replacement
   * waits.
   */
  onCrash(now: number): number {
    if (now - this.last > quietTime) this.crashes = 0;
    this.last = now;
    this.crashes++;
    return delays[Math.min(this.crashes, delays.length) - 1] ?? 0;
  }
}
