import type { RefusalReason } from '../../control/messages.js';

/**
 * A client's way in, as the primary counts it: how long it may take, and why it was turned away.
 */
export class Admission {
  /** Why it was closed before it was in. */
  refusal: RefusalReason | null = null;
  private readonly timer: NodeJS.Timeout;

  /** `tooLate` is called after so many milliseconds unless `end()` was. */
  constructor(milliseconds: number, tooLate: () => void) {
    this.timer = setTimeout(() => {
      this.refusal = 'login_timeout';
      tooLate();
    }, milliseconds);
  }

  /** It is in, or gone. */
  end(): void {
    clearTimeout(this.timer);
  }
}
