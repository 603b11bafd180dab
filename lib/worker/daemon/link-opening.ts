import type { OpenArguments } from '../../rpc/session-messages.js';
import type { DaemonMeter } from '../reports/call-meter.js';
import type { DaemonConnection } from './connection.js';
import { isUnreadable } from './conversation.js';
import type { Endpoint } from './directory.js';
import { ConnectError, failureOf, TimeoutError, unreadableError } from './errors.js';
import type { LinkSettings } from './link-owner.js';
import type { LinkRole } from './reply-gate.js';

/** Milliseconds that an attempt has at least. */
const shortestAttempt = 25;

/** How the connections of one link are opened. */
export class LinkOpening {
  constructor(
    private readonly endpoint: Endpoint,
    private readonly role: LinkRole,
    private readonly open: OpenArguments,
    private readonly settings: LinkSettings,
    private readonly meter: DaemonMeter | null,
  ) {}

  /**
   * Opens a connection and does what the daemon is to be asked `afterwards`, all within
   * open_timeout and `most` milliseconds; else closes it. Rejects with TimeoutError then, besides
   * what the connection's `open` rejects with.
   */
  async attempt(
    connection: DaemonConnection,
    most: number,
    afterwards: () => Promise<void> = () => Promise.resolve(),
  ): Promise<void> {
    const { endpoint, open } = this;
    const { connect, identity, openTimeoutSeconds } = this.settings;
    const milliseconds = Math.max(Math.min(openTimeoutSeconds * 1000, most), shortestAttempt);
    const timer = setTimeout(
      () => connection.giveUp(new TimeoutError(endpoint, milliseconds / 1000)),
      milliseconds,
    );
    try {
      await connection.open({ connect, open, identity: identity() });
      await afterwards();
    } catch (error) {
      connection.close();
      this.noteFailure(error);
      throw isUnreadable(error) ? unreadableError(endpoint) : error;
    } finally {
      clearTimeout(timer);
    }
  }

  private noteFailure(error: unknown): void {
    const why = failureOf(error);
    // A host without a secondary daemon is no failure: the hypervisor's takes its place.
    const isAbsent = error instanceof ConnectError && error.reason.code === 'ENOENT';
    if (why !== null && !(isAbsent && this.role === 'secondary')) this.meter?.failed(why);
  }
}
