import type { RefusalReason } from '../../control/messages.js';

/** Milliseconds between two words to the primary about what a client says that has not logged in. */
const spokenInterval = 1000;

/** A client's way in, as the primary counts it: that it says something, how long it may take, and why it was turned away. */
export class Admission {
  /** Why it was closed before it was in. */
  refusal: RefusalReason | null = null;
  /** Milliseconds of `performance.now()` when the primary was last told that the client speaks. */
  private spokeAt = -Infinity;
  private readonly timer: NodeJS.Timeout;

  /** `tooLate` is called after so many milliseconds unless `end()` was. */
  constructor(
    milliseconds: number,
    tooLate: () => void,
    private readonly tellPrimary: () => void,
  ) {
    this.timer = setTimeout(() => {
      this.refusal = 'login_timeout';
      tooLate();
    }, milliseconds);
  }

  /** Tells the primary at once, and then no more often than it matters: a stranger sends as many frames as it likes. */
  spoke(): void {
    const now = performance.now();
    if (now - this.spokeAt < spokenInterval) return;
    this.spokeAt = now;
    this.tellPrimary();
  }

  /** It is in, or gone. */
  end(): void {
    clearTimeout(this.timer);
  }
}
