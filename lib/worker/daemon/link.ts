/**
 * The room of a daemon: where its socket is, connecting and opening, which of its frames a client
 * gets, and how it is opened again once it has gone away. What concerns one driver's daemon enters;
 * of clients it knows that each link has an owner.
 */
import { DescriptorError } from '../../rpc/descriptor-matcher.js';
import { procedureOf, programOf, status, statusOf } from '../../rpc/frame.js';
import { procedureName } from '../../rpc/procedures.js';
import type { OpenArguments } from '../../rpc/session-messages.js';
import type { DaemonMeter } from '../reports/call-meter.js';
import type { CallTable, TakenCall } from './call-table.js';
import { DaemonConnection, type ConnectionOwner } from './connection.js';
import type { Endpoint } from './directory.js';
import { endReason, isBreach } from './errors.js';
import { LinkCalls } from './link-calls.js';
import { LinkOpening } from './link-opening.js';
import type { LinkOwner, LinkSettings } from './link-owner.js';
import { Reopening, type LostLink } from './reopening.js';
import {
  carriesStream,
  judgeDaemonFrame,
  type LinkRole,
  type LinkSituation,
} from './reply-gate.js';

/**
 * Being opened for the first time or again, open, away (its daemon is gone and the next call opens
 * it again), or closed for good.
 */
export type LinkState = 'opening' | 'open' | 'away' | 'closed';

/**
 * One client's relation to one driver. It opens a connection to the driver's daemon and relays:
 * frames go to the daemon through `forward`, what the daemon sends goes to the owner. When the
 * daemon goes away and comes back it is opened again with all that the client had asked it for:
 * events, and calls under way that only ask.
 */
export class DaemonLink implements ConnectionOwner, LinkSituation, LostLink {
  private readonly underWay: LinkCalls;
  private readonly opening: LinkOpening;
  /** Copies of calls that wait until the link is open. */
  private waiting: Buffer[] = [];
  private connection: DaemonConnection;
  private current: LinkState = 'opening';
  /** From the daemon's end until the link is open again. */
  private reopening: Reopening | null = null;
  /** The large frame arriving is for nobody. */
  private skipping = false;
  private warned = false;

  constructor(
    readonly endpoint: Endpoint,
    readonly role: LinkRole,
    open: OpenArguments,
    private readonly owner: LinkOwner<DaemonLink>,
    private readonly settings: LinkSettings,
    /** Null when nobody wants to know. */
    private readonly meter: DaemonMeter | null = null,
  ) {
    this.underWay = new LinkCalls(settings.restarts.settings.patience > 0, meter);
    this.opening = new LinkOpening(endpoint, role, open, settings, meter);
    this.connection = new DaemonConnection(this, endpoint);
  }

  get state(): LinkState {
    return this.current;
  }

  get driver(): string {
    return this.endpoint.driver;
  }

  get calls(): CallTable {
    return this.underWay.calls;
  }

  get streams(): CallTable {
    return this.underWay.streams;
  }

  get followsDescriptors(): boolean {
    return this.connection.followsDescriptors;
  }

  /** Bytes the daemon has not taken yet. */
  get queuedBytes(): number {
    return this.connection.queuedBytes;
  }

  /** Calls that the daemon has not answered, those that wait for it included. */
  get pendingCalls(): number {
    return this.calls.size + (this.reopening?.keptCalls ?? 0) + this.waiting.length;
  }

  /** In the middle of a large frame that the client has had part of. */
  get midLargeFrame(): boolean {
    return this.connection.midLargeFrame && !this.skipping;
  }

  /**
   * Connects and opens. No call of the client is forwarded before the daemon knows for whom.
   * Rejects with an RpcError or a DaemonRefusal; the link is closed then.
   */
  async open(): Promise<void> {
    try {
      await this.opening.attempt(this.connection, Infinity);
      if (!this.transition('open')) throw new Error('the link was closed');
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Forwards a whole call frame and remembers it until its reply. */
  forwardCall(bytes: Buffer, start: number, end: number): void {
    if (this.underWay.add(bytes, start, end)) this.connection.expectDescriptors();
    this.connection.forward(bytes, start, end);
  }

  /**
   * Keeps a copy of a call frame until the link is open; opens it again if its daemon has gone
   * away.
   */
  hold(bytes: Buffer, start: number, end: number): void {
    this.waiting.push(Buffer.from(bytes.subarray(start, end)));
    this.openAgain();
  }

  /** Opens the link again if its daemon has gone away. */
  openAgain(): void {
    if (this.current === 'away') this.transition('opening');
  }

  /** The calls that waited for it, oldest first. */
  takeWaiting(): Buffer[] {
    return this.waiting.splice(0);
  }

  /** Forwards a whole frame that has no reply. */
  forward(bytes: Buffer, start: number, end: number): void {
    this.connection.forward(bytes, start, end);
  }

  /** Forwards part of a large frame, between `beginLarge()` and `endLarge()`. */
  forwardPart(bytes: Buffer, start: number, end: number): void {
    this.connection.forwardPart(bytes, start, end);
  }

  /**
   * Sends the descriptors of the call, a large one or not, that was forwarded last; they belong to
   * the link from now on.
   */
  sendDescriptors(descriptors: number[], isLarge: boolean): void {
    this.connection.sendDescriptors(descriptors, isLarge);
  }

  /** Whether a stream frame of the client belongs to a stream that is open here. */
  carries(bytes: Buffer, start: number): boolean {
    return this.current === 'open' && carriesStream(bytes, start, this);
  }

  /** Remembers a call whose frame is forwarded in parts. */
  rememberLarge(bytes: Buffer, start: number): void {
    if (this.underWay.add(bytes, start, null)) this.connection.expectDescriptors();
  }

  /**
   * Keeps all other frames out of a large one that is forwarded in parts, until `endLarge()`: the
   * proxy's own, and calls that waited for another daemon and come here because there is none.
   */
  beginLarge(): void {
    this.connection.beginLarge();
  }

  endLarge(): void {
    this.connection.endLarge();
  }

  /** Sends what was forwarded since the last time. */
  flush(): void {
    this.connection.flush();
  }

  /** Stops reading from the daemon for a reason of the owner's. */
  pause(reason: unknown): void {
    this.connection.hold(reason);
  }

  resume(reason: unknown): void {
    this.connection.release(reason);
  }

  /** The client can take a large frame again. */
  retry(): void {
    this.connection.retry();
  }

  /** Closes without telling the owner. */
  close(): void {
    this.transition('closed');
  }

  // The connection

  onBytes(): void {
    this.meter?.tick();
  }

  onTurnEnded(): void {
    this.owner.turnEnded(this);
  }

  onDrained(): void {
    this.owner.drained(this);
  }

  frame(bytes: Buffer, start: number, length: number): void {
    if (this.current !== 'open') {
      const { conversation } = this.connection;
      if (this.reopening === null) conversation.frame(bytes, start, length);
      else this.reopening.frame(bytes, start, length, conversation);
      return;
    }
    if (!this.admit(bytes, start, length)) return;
    const descriptors = this.connection.takeDescriptors();
    const end = start + length;
    if (descriptors === null) this.owner.fromDaemon(this, bytes, start, end);
    else this.owner.replyWithDescriptors(this, bytes, start, end, descriptors);
  }

  largeFrame(bytes: Buffer, start: number, length: number): boolean {
    const wasOpen = this.current === 'open';
    if (wasOpen && !this.owner.claimClient(this)) {
      this.connection.suspend();
      return false;
    }
    // What is not admitted may end the link.
    this.skipping = !wasOpen || !this.admit(bytes, start, length);
    if (this.skipping && wasOpen) this.owner.releaseClient(this);
    return true;
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.skipping) return;
    this.owner.fromDaemon(this, bytes, start, end);
    if (!last) return;
    const descriptors = this.connection.takeDescriptors();
    if (descriptors !== null) this.owner.largeReplyDescriptors(this, descriptors);
    this.owner.releaseClient(this);
  }

  onEnd(connection: DaemonConnection, error: Error | null): void {
    // What is being opened tells whoever opens it.
    if (connection !== this.connection || this.current !== 'open') return;
    const reason = endReason(error);
    const { endpoint, meter } = this;
    if (isBreach(error)) {
      const { daemon, path } = endpoint;
      this.settings.log.error(`${daemon} at '${path}' ${error.message}: connection closed`);
    }
    // What the owner forwards now is of this moment.
    meter?.tick();
    meter?.failed('lost');
    // One that breaks the rules would do so again.
    this.onLost(reason, !isBreach(error) && this.underWay.areRestartable);
  }

  private onLost(reason: string, isRestartable: boolean): void {
    const { loss, kept } = this.underWay.takeLost(reason, isRestartable);
    if (!isRestartable || this.midLargeFrame) {
      this.transition('closed');
      this.owner.lost(this, loss);
      return;
    }
    const { restarts } = this.settings;
    const restart = restarts.onLost(this.endpoint, reason);
    restarts.onCalls(restart, { failed: loss.calls.length });
    this.reopening = new Reopening(this, restarts, restart, kept);
    this.transition('away');
    this.owner.lost(this, loss);
    // Nobody else would, who only waits for an answer or an event.
    if (kept.length > 0 || !this.underWay.registrations.isEmpty) this.openAgain();
  }

  // Opening it again

  get waitingCalls(): number {
    return this.waiting.length;
  }

  async connect(most: number, onOpen: () => void): Promise<void> {
    this.connection = new DaemonConnection(this, this.endpoint);
    const { conversation } = this.connection;
    await this.opening.attempt(this.connection, most, () => {
      onOpen();
      return this.underWay.registrations.renew(conversation);
    });
  }

  onBack(calls: readonly TakenCall[], events: readonly Buffer[]): void {
    this.transition('open');
    for (const call of calls) this.sendAgain(call);
    for (const event of events) this.frame(event, 0, event.length);
    // One of them may have been too much for the client.
    if (this.isClosed) return;
    this.owner.reopened(this);
    this.owner.turnEnded(this);
  }

  private sendAgain(call: TakenCall): void {
    const { frame } = call;
    if (frame === null) return;
    if (this.underWay.addAgain(frame, call)) this.connection.expectDescriptors();
    this.connection.forward(frame, 0, frame.length);
  }

  onStayedAway(error: unknown, calls: readonly TakenCall[]): void {
    this.meter?.lost(calls);
    this.transition('away');
    this.owner.stayedAway(this, error, calls);
  }

  private get isClosed(): boolean {
    return this.current === 'closed';
  }

  /**
   * The only place that changes the state, and has done what comes with the new one; false when the
   * link is closed already, for good.
   */
  private transition(to: LinkState): boolean {
    const from = this.current;
    if (from === 'closed') return false;
    const { log } = this.settings;
    if (log.debugging) log.debug(`link to ${this.endpoint.daemon}: ${from} -> ${to}`);
    this.current = to;
    if (from === 'open') this.meter?.closed();
    switch (to) {
      case 'opening':
        void this.reopening?.run();
        break;
      case 'open':
        this.reopening = null;
        this.meter?.opened();
        break;
      case 'away':
        this.connection.close();
        break;
      case 'closed':
        this.release();
        break;
    }
    return true;
  }

  /** Gives up calls without an answer, the opening if one is under way, and the connection. */
  private release(): void {
    this.connection.giveUp(linkClosed);
    const kept = this.reopening?.end(linkClosed) ?? [];
    this.meter?.lost([...this.calls.takeAll(), ...kept]);
    this.connection.close();
  }

  // Frames

  /**
   * Whether a frame of the daemon goes to the client; keeps account of calls, streams and
   * registrations.
   */
  private admit(bytes: Buffer, start: number, length: number): boolean {
    const verdict = judgeDaemonFrame(bytes, start, this);
    switch (verdict.fate) {
      case 'reply':
        this.onReply(bytes, start, length);
        return true;
      case 'event':
        this.underWay.registrations.onEvent(bytes, start, length);
        return true;
      case 'stream':
        return true;
      case 'end':
        this.underWay.onStreamEnd(bytes, start);
        return true;
      case 'ping':
        this.connection.answerPing();
        return false;
      case 'refuse':
        this.complain(verdict.what, bytes, start);
        return false;
      case 'break':
        this.breakOff(bytes, start);
        return false;
      case 'drop':
        return false;
    }
  }

  private onReply(bytes: Buffer, start: number, length: number): void {
    this.underWay.onReply(bytes, start, length, statusOf(bytes, start) === status.ok);
    this.owner.answered(this, bytes, start);
  }

  private complain(what: string, bytes: Buffer, start: number): void {
    const { daemon, path } = this.endpoint;
    const { log } = this.settings;
    const name = procedureName(programOf(bytes, start), procedureOf(bytes, start));
    const line = `${daemon} at '${path}' sent ${what} (${name}): dropped`;
    if (this.warned) log.debug(line);
    else log.warning(line);
    this.warned = true;
  }

  /** Its descriptors are lost, and the bytes they came with are not told from frames. */
  private breakOff(bytes: Buffer, start: number): void {
    const name = procedureName(programOf(bytes, start), procedureOf(bytes, start));
    const what = `sent descriptors that a reply to ${name} does not have`;
    this.connection.closed(new DescriptorError(what));
  }
}

const linkClosed = new Error('the link was closed');
