/**
 * The room between a client and its daemons: which of them has a call, what waits for its turn, and
 * how their answers get back. What concerns several links of one client enters; it sees of the
 * client no more than `RelayClient`, and knows neither logins nor sockets.
 */
import { closeDescriptors } from '../../native/descriptors.js';
import {
  callOf,
  messageType,
  procedureOf,
  programOf,
  serialOf,
  status,
  statusOf,
  typeOf,
  type CallHeader,
} from '../../rpc/frame.js';
import { changesState, procedureAt, procedureName } from '../../rpc/procedures.js';
import { encodeErrorReply, encodeStreamAbort, type RpcError } from '../../rpc/rpc-error.js';
import { procedure, type OpenArguments } from '../../rpc/session-messages.js';
import type { Outbox } from '../../transport/outbox.js';
import type { ReadGate } from '../../transport/read-gate.js';
import { daemonHighWater } from '../daemon/connection.js';
import type { DaemonDirectory, Endpoint } from '../daemon/directory.js';
import { explain, failureOf, LostError } from '../daemon/errors.js';
import type { LinkSettings, Loss } from '../daemon/link-owner.js';
import type { DaemonLink } from '../daemon/link.js';
import type { CallAudit } from '../reports/call-audit.js';
import type { CallMeter } from '../reports/call-meter.js';
import { connectionClosedEvent, encodeFailure, noDescriptors, socketClosed } from './answers.js';
import { CallDescriptors } from './call-descriptors.js';
import { DaemonSet, type DaemonSetOwner } from './daemon-set.js';
import { HeldCalls } from './held-calls.js';
import { LargeFrames, type LargeFramesRelay } from './large-frames.js';
import { RelayTotals } from './relay-totals.js';

/** Bytes the client may be behind before its daemons are no longer read. */
export const clientHighWater = 256 * 1024;

/** The client's side, as the relay sees it. */
export interface RelayClient {
  readonly id: number;
  readonly outbox: Outbox;
  readonly gate: ReadGate;
  /** A large frame that was refused may be offered again. */
  retryLarge(): void;
  close(reason: string): void;
}

export interface RelaySettings extends LinkSettings {
  readonly daemons: DaemonDirectory;
  readonly maxCalls: number;
  readonly audit: CallAudit;
  /** Null when nobody wants to know. */
  readonly meter: CallMeter | null;
}

/**
 * The way of a client's frames to its daemons and back, from a successful CONNECT_OPEN on. Each
 * call goes to the daemon that its procedure names; what a daemon sends goes to the client as it
 * came.
 */
export class Relay implements DaemonSetOwner, LargeFramesRelay {
  readonly totals = new RelayTotals();
  private readonly links: DaemonSet;
  /** Daemons' drivers that were asked for events. */
  private readonly eventDrivers = new Set<string>();
  private readonly held: HeldCalls;
  private readonly descriptors: CallDescriptors;
  private isOpen = false;
  private closeCallback = false;
  /** The client's. */
  readonly large: LargeFrames;

  constructor(
    private readonly client: RelayClient,
    private readonly settings: RelaySettings,
  ) {
    this.held = new HeldCalls(client.gate);
    this.descriptors = new CallDescriptors(client.gate);
    this.links = new DaemonSet(settings, this);
    this.large = new LargeFrames(this.links, this);
  }

  /** Opens the hypervisor's daemon. Rejects with RpcError or DaemonRefusal. */
  async open(endpoint: Endpoint, opening: OpenArguments): Promise<void> {
    await this.links.open(endpoint, opening);
    this.totals.daemons.add(endpoint.daemon);
    this.isOpen = true;
  }

  /** Answers the calls that waited for an opening that failed. */
  failHeld(error: RpcError): void {
    while (!this.held.isEmpty) this.fail(this.held.next(), 0, error);
  }

  /** A whole call frame of the client. */
  call(bytes: Buffer, start: number, end: number): void {
    this.totals.calls++;
    if (this.mustWait) this.held.add(bytes.subarray(start, end));
    else this.dispatch(bytes, start, end);
  }

  /**
   * The descriptors of the call that follows; they belong to the relay from now on. False if that
   * is none.
   */
  keepDescriptors(bytes: Buffer, start: number, descriptors: number[]): boolean {
    if (this.descriptors.keep(serialOf(bytes, start), descriptors)) return true;
    closeDescriptors(descriptors);
    this.client.close('sent two calls with descriptors and the same serial number');
    return false;
  }

  /**
   * A whole stream frame of the client: it belongs to a call that was forwarded, so it never waits.
   * One of no stream is dropped, as daemons do, since the stream may just have ended.
   */
  streamFrame(bytes: Buffer, start: number, end: number): void {
    const link = this.links.known(bytes, start);
    if (link?.carries(bytes, start) === true) link.forward(bytes, start, end);
  }

  /** A chunk from the client has been dealt with. */
  clientTurnEnded(): void {
    for (const link of this.links.all) {
      link.flush();
      if (link.queuedBytes > daemonHighWater) this.client.gate.close(link);
    }
  }

  /** The client has taken all that was queued for it. */
  clientDrained(): void {
    for (const link of this.links.all) link.resume(clientHighWater);
  }

  /** Forwards calls that were held back, as far as the limit allows now. */
  pump(): void {
    while (this.isOpen && this.hasRoom && !this.held.isEmpty) {
      const frame = this.held.next();
      this.dispatch(frame, 0, frame.length);
    }
    for (const link of this.links.all) link.flush();
    if (!this.mustWait || this.large.hasFailed) this.client.retryLarge();
  }

  /**
   * Calls that daemons were given, or are to be given once they are open, and that are not answered
   * yet.
   */
  get pendingCalls(): number {
    let count = 0;
    for (const link of this.links.all) count += link.pendingCalls;
    return count;
  }

  /** Whether a secondary daemon has been told for whom it works. */
  get hasSecondaries(): boolean {
    return this.links.hasSecondaries;
  }

  /** Calls that wait for their turn. */
  get heldCalls(): number {
    return this.held.size;
  }

  close(): void {
    this.settings.audit.close();
    this.links.close();
    this.held.clear();
    this.descriptors.clear();
  }

  fromDaemon(link: DaemonLink, bytes: Buffer, start: number, end: number): void {
    this.client.outbox.forward(link, bytes, start, end);
  }

  replyWithDescriptors(
    link: DaemonLink,
    bytes: Buffer,
    start: number,
    end: number,
    descriptors: number[],
  ): void {
    const { outbox } = this.client;
    if (descriptors.length === 0 || outbox.passesDescriptors) {
      outbox.forward(link, bytes, start, end);
      outbox.sendDescriptors(link, descriptors);
    } else {
      closeDescriptors(descriptors);
      this.totals.errors++;
      this.send(encodeErrorReply(callOf(bytes, start), noDescriptors));
    }
  }

  largeReplyDescriptors(link: DaemonLink, descriptors: number[]): void {
    const { outbox } = this.client;
    if (descriptors.length === 0 || outbox.passesDescriptors) {
      outbox.sendDescriptors(link, descriptors);
    } else {
      closeDescriptors(descriptors);
      this.client.close(`${link.endpoint.daemon} sent descriptors that cannot be passed on`);
    }
  }

  claimClient(link: DaemonLink): boolean {
    return this.client.outbox.claim(link);
  }

  releaseClient(): void {
    const { outbox, gate } = this.client;
    outbox.release();
    // Otherwise the client is behind, and `clientDrained` will come.
    if (outbox.queuedBytes <= clientHighWater) gate.open(outbox);
    for (const other of this.links.all) {
      other.resume(this.client);
      other.retry();
    }
  }

  answered(link: DaemonLink, reply: Buffer, start: number): void {
    const succeeded = statusOf(reply, start) === status.ok;
    const { audit } = this.settings;
    if (audit.isFollowing) audit.ended(callOf(reply, start), succeeded ? 'ok' : 'error');
    if (this.settings.log.debugging) {
      const what = `${succeeded ? 'reply' : 'error'} from ${link.endpoint.daemon}`;
      this.logCall(callOf(reply, start), what);
    }
    if (!succeeded) {
      this.totals.errors++;
      return;
    }
    const number = procedureOf(reply, start);
    if (number === procedure.connectRegisterCloseCallback) this.closeCallback = true;
    if (number === procedure.connectUnregisterCloseCallback) this.closeCallback = false;
    const row = procedureAt(programOf(reply, start), number);
    if (row !== undefined && row.registration !== null) {
      this.eventDrivers.add(link.endpoint.driver);
    }
  }

  turnEnded(link: DaemonLink): void {
    this.pump();
    const { outbox } = this.client;
    outbox.flush();
    // One that is being opened sends the client nothing, and nobody would release it.
    if (link.state !== 'open') return;
    if (outbox.queuedBytes > clientHighWater) link.pause(clientHighWater);
    if (outbox.isBlockedFor(link)) link.pause(this.client);
  }

  drained(link: DaemonLink): void {
    this.client.gate.open(link);
  }

  /**
   * A daemon went away: calls and streams that cannot go on end with an error that names it, and a
   * client that asked to be told of its connection's end is told if it lost the hypervisor or
   * events it had asked for. Its other daemons go on.
   */
  lost(link: DaemonLink, { reason, calls, streams }: Loss): void {
    const { endpoint, state } = link;
    const { daemon, path, driver } = endpoint;
    const { id } = this.client;
    const line = `client ${id}: lost connection to ${daemon} at '${path}': ${reason}; its own log may say why`;
    // Links that will be opened again have one line for all of them.
    if (state === 'closed') this.settings.log.warning(line);
    else this.settings.log.debug(line);
    if (link.midLargeFrame) {
      this.client.close(`${daemon} went away in the middle of a frame`);
      return;
    }
    this.large.onLost(link);
    for (const call of calls) this.failLost(call, link, reason);
    const error = new LostError(endpoint, reason);
    for (const stream of streams) this.send(encodeStreamAbort(stream, error));
    if (this.closeCallback && (link.role === 'hypervisor' || this.eventDrivers.has(driver))) {
      this.send(connectionClosedEvent);
    }
    if (state === 'closed') {
      this.links.forget(link);
      this.eventDrivers.delete(driver);
    }
    this.client.gate.open(link);
    this.pump();
  }

  reopened(link: DaemonLink): void {
    for (const frame of link.takeWaiting()) this.dispatch(frame, 0, frame.length);
    link.flush();
  }

  /**
   * Those that had been forwarded fail as at a loss, those that waited as they would without it.
   */
  stayedAway(link: DaemonLink, error: unknown, repeated: readonly CallHeader[]): void {
    const reason = explain(error);
    for (const call of repeated) this.failLost(call, link, reason);
    this.failWaiting(link, link.role === 'hypervisor' && !isRefusal(error) ? socketClosed : error);
    this.client.gate.open(link);
    this.pump();
  }

  /** A secondary daemon was opened at first use: what waited for it goes there. */
  opened(link: DaemonLink): void {
    this.totals.daemons.add(link.endpoint.daemon);
    this.reopened(link);
    this.pump();
  }

  /**
   * It could not be opened; null: there is none, and what waited for it goes to the hypervisor's.
   */
  failedToOpen(link: DaemonLink, error: unknown): void {
    if (error !== null) {
      const { id } = this.client;
      const { daemon } = link.endpoint;
      this.settings.log.warning(`client ${id}: cannot open ${daemon}: ${explain(error)}`);
      this.failWaiting(link, error);
    } else {
      this.reopened(link);
    }
    this.pump();
  }

  private failWaiting(link: DaemonLink, error: unknown): void {
    this.large.onFailed(link, error);
    for (const frame of link.takeWaiting()) this.fail(frame, 0, error);
  }

  private failLost(call: CallHeader, { endpoint, state }: DaemonLink, reason: string): void {
    this.settings.audit.ended(call, 'lost');
    this.totals.errors++;
    // A client whose calls are sent again elsewhere is told why this one was not.
    const isUnsure = state !== 'closed' && changesState(call.program, call.procedure);
    this.send(encodeErrorReply(call, new LostError(endpoint, reason, isUnsure)));
  }

  private get hasRoom(): boolean {
    return this.pendingCalls < this.settings.maxCalls;
  }

  get mustWait(): boolean {
    return !this.isOpen || !this.held.isEmpty || !this.hasRoom;
  }

  private dispatch(bytes: Buffer, start: number, end: number): void {
    const link = this.links.find(bytes, start);
    switch (link.state) {
      case 'open':
        this.noteBegin(bytes, start, link);
        link.forwardCall(bytes, start, end);
        if (!this.descriptors.isEmpty) {
          link.sendDescriptors(this.takeDescriptors(bytes, start), false);
        }
        break;
      case 'opening':
      case 'away':
        link.hold(bytes, start, end);
        break;
      case 'closed':
        this.fail(bytes, start, socketClosed);
        break;
    }
  }

  onLargeCall(bytes: Buffer, start: number, link: DaemonLink | null, failure: unknown): void {
    this.totals.calls++;
    if (link === null) {
      this.fail(bytes, start, failure);
    } else {
      this.noteBegin(bytes, start, link);
      link.rememberLarge(bytes, start);
    }
  }

  /** A call is about to be forwarded. */
  private noteBegin(bytes: Buffer, start: number, { endpoint }: DaemonLink): void {
    const { audit } = this.settings;
    if (audit.isOn) audit.began(bytes, start, endpoint.daemon);
    if (this.settings.log.debugging) this.logCall(callOf(bytes, start), `to ${endpoint.daemon}`);
  }

  private logCall({ program, procedure, serial }: CallHeader, what: string): void {
    const name = procedureName(program, procedure);
    this.settings.log.debug(`client ${this.client.id}: ${name}, serial ${serial}: ${what}`);
  }

  /** Answers a call with an error, the daemon's own where it gave one. */
  private fail(bytes: Buffer, start: number, error: unknown): void {
    const { audit, meter } = this.settings;
    if (audit.isOn) audit.refused(bytes, start);
    if (!this.descriptors.isEmpty) closeDescriptors(this.takeDescriptors(bytes, start));
    meter?.ended(programOf(bytes, start), procedureOf(bytes, start), 'refused');
    this.totals.errors++;
    this.send(encodeFailure(callOf(bytes, start), error));
  }

  private takeDescriptors(bytes: Buffer, start: number): number[] {
    const isTheirs = typeOf(bytes, start) === messageType.callWithFds;
    return isTheirs ? this.descriptors.take(serialOf(bytes, start)) : [];
  }

  private send(frame: Buffer): void {
    this.client.outbox.send(this, frame);
  }
}

/** Whether a daemon that is there did not want to be opened; else it is not there. */
const isRefusal = (error: unknown): boolean => failureOf(error) === 'refused';
