import { threadKeys } from '../../native/thread-keys.js';

/**
 * The part of the process's thread keys that may be in use; the rest is for those who log in
 * meanwhile.
 */
const mostUse = 0.5;

/**
 * Tells, once, when the process runs short of thread keys: libsasl2's plug-ins may need some for
 * each client and may lose them (`native/sasl-plugins.ts`), and without any every login would fail,
 * whatever the password.
 */
export class SaslWear {
  private isTold = false;

  constructor(
    private readonly tell: (state: string) => void,
    private readonly look = threadKeys,
  ) {}

  /** To be called when a client has come one step further, or has failed. */
  check(): void {
    if (this.isTold) return;
    const { used, most } = this.look();
    if (used < mostUse * most) return;
    this.isTold = true;
    this.tell(`${used} of ${most} thread keys in use`);
  }
}
