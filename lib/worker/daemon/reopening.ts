import { messageType, programOf, typeOf } from '../../rpc/frame.js';
import { isForwardedProgram } from '../../rpc/procedures.js';
import type { TakenCall } from './call-table.js';
import type { DaemonConversation } from './conversation.js';
import type { Endpoint } from './directory.js';
import type { DaemonRestarts, Restart, Returning } from './restarts.js';

/** Bytes of events that may come while a daemon is asked for the rest of them again. */
const maxEarlyEvents = 1024 * 1024;

/** A link whose daemon went away. */
export interface LostLink {
  readonly endpoint: Endpoint;
  /** Calls that have come since and wait until it is open. */
  readonly waitingCalls: number;
  /**
   * Opens a new connection and asks the daemon for the client's events again, all within
   * open_timeout and `most` milliseconds; `onOpen` is called in between. Rejects as
   * `DaemonConnection.open`, or with TimeoutError.
   */
  connect(most: number, onOpen: () => void): Promise<void>;
  /** A new connection is open: these calls go there, and these events came from there. */
  onBack(calls: readonly TakenCall[], events: readonly Buffer[]): void;
  /** There is no new connection: these calls have failed, and all that wait do. */
  onStayedAway(error: unknown, calls: readonly TakenCall[]): void;
}

/**
 * The opening of a link again, from the loss of its daemon until it is back: how long it is waited
 * for, and the calls and events that are kept meanwhile. A daemon that has stayed away for too long
 * is tried once at each later call.
 */
export class Reopening implements Returning {
  /** The daemon is waited for; not once it has stayed away for too long. */
  private isPatient = true;
  /** Aborted once the link is closed. */
  private readonly leaving = new AbortController();
  /**
   * Events that came while the daemon was asked for the rest of them again; null at all other
   * times.
   */
  private earlyEvents: Buffer[] | null = null;
  private earlyBytes = 0;

  constructor(
    private readonly link: LostLink,
    private readonly restarts: DaemonRestarts,
    private readonly restart: Restart,
    /** Calls that the daemon had not answered and that will be sent again. */
    private unanswered: readonly TakenCall[],
  ) {}

  /** Calls that will be sent again. */
  get keptCalls(): number {
    return this.unanswered.length;
  }

  get isUrgent(): boolean {
    return this.keptCalls + this.link.waitingCalls > 0;
  }

  /** Waits for the daemon and tells the link what came of it, unless that was closed. */
  async run(): Promise<void> {
    const { restarts, restart } = this;
    const { signal } = this.leaving;
    let failure: unknown = null;
    restarts.onReopening(restart);
    try {
      await restarts.reach(this, this.isPatient ? restarts.settings.patience : 0, signal);
    } catch (error) {
      failure = error;
    }
    if (signal.aborted) {
      restarts.onSettled(restart, 'left');
    } else if (failure === null) {
      this.resume();
      restarts.onSettled(restart, 'back');
    } else {
      this.giveUp(failure);
      restarts.onSettled(restart, 'away');
    }
  }

  async attempt(most: number): Promise<void> {
    await this.link.connect(most, () => {
      this.earlyEvents = [];
      this.earlyBytes = 0;
    });
  }

  /**
   * A frame that comes meanwhile: an answer to one of the proxy's own calls, or an event that was
   * asked for again.
   */
  frame(bytes: Buffer, start: number, length: number, conversation: DaemonConversation): void {
    const isEvent =
      typeOf(bytes, start) === messageType.message && isForwardedProgram(programOf(bytes, start));
    if (this.earlyEvents === null || !isEvent) {
      conversation.frame(bytes, start, length);
      return;
    }
    this.earlyEvents.push(Buffer.from(bytes.subarray(start, start + length)));
    this.earlyBytes += length;
    if (this.earlyBytes > maxEarlyEvents) {
      conversation.fail(new Error('too many events came while it was opened'));
    }
  }

  /** The link is closed. Gives the calls that will not be sent again any more. */
  end(reason: Error): readonly TakenCall[] {
    this.leaving.abort(reason);
    return this.takeUnanswered();
  }

  private resume(): void {
    const calls = this.takeUnanswered();
    const events = this.earlyEvents ?? [];
    this.restarts.onCalls(this.restart, { repeated: calls.length });
    this.link.onBack(calls, events);
  }

  private giveUp(error: unknown): void {
    this.earlyEvents = null;
    this.isPatient = false;
    const calls = this.takeUnanswered();
    this.restarts.onCalls(this.restart, { failed: calls.length + this.link.waitingCalls });
    this.link.onStayedAway(error, calls);
  }

  private takeUnanswered(): readonly TakenCall[] {
    const calls = this.unanswered;
    this.unanswered = [];
    return calls;
  }
}
