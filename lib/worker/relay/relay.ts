import type { TypedParameter } from '../../rpc/typed-parameters.js';
import type { Logger } from '../../logging/logger.js';
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
import { procedureAt, procedureName, type SecondaryDriver } from '../../rpc/procedures.js';
import { encodeErrorReply, encodeStreamAbort, type RpcError } from '../../rpc/rpc-error.js';
import { openReadOnly, procedure, type OpenArguments } from '../../rpc/session-messages.js';
import type { Outbox } from '../../transport/outbox.js';
import { connectionClosedEvent, encodeFailure, noDescriptors, socketClosed } from './answers.js';
import type { CallAudit } from '../reports/call-audit.js';
import { CallDescriptors } from './call-descriptors.js';
import type { CallMeter } from '../reports/call-meter.js';
import type { DaemonDirectory, Endpoint } from '../daemon/directory.js';
import { ConnectError, explain, LostError } from '../daemon/errors.js';
import {
  daemonHighWater,
  DaemonLink,
  type Connect,
  type LinkOwner,
  type LinkRole,
} from '../daemon/link.js';
import { HeldCalls } from './held-calls.js';
import type { ReadGate } from '../../transport/read-gate.js';
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

export interface RelaySettings {
  readonly daemons: DaemonDirectory;
  readonly connect: Connect;
  readonly maxCalls: number;
  readonly openTimeoutSeconds: number;
  readonly identity: () => readonly TypedParameter[];
  readonly audit: CallAudit;
  /** Null when nobody wants to know. */
  readonly meter: CallMeter | null;
}

/** A secondary daemon that is being opened, with the calls that wait for it. */
interface Opening {
  readonly link: DaemonLink;
  readonly waiting: Buffer[];
}

/**
 * The way of a client's frames to its daemons and back, from a successful CONNECT_OPEN on. Each call goes to the daemon
 * that its procedure names; what a daemon sends goes to the client as it came.
 */
export class Relay implements LinkOwner {
  readonly totals = new RelayTotals();
  private hypervisor: DaemonLink | null = null;
  /** The hypervisor's link from its first step on. */
  private opening: DaemonLink | null = null;
  private readonly secondaries = new Map<SecondaryDriver, DaemonLink>();
  /** The hypervisor's and the secondaries' once they are open. */
  private links: readonly DaemonLink[] = [];
  private readonly openings = new Map<SecondaryDriver, Opening>();
  /** Drivers without a daemon of their own here: the hypervisor's serves them. */
  private readonly absent = new Set<SecondaryDriver>();
  /** Drivers whose daemon was asked for events. */
  private readonly eventDrivers = new Set<string>();
  private readonly held: HeldCalls;
  private readonly descriptors: CallDescriptors;
  private inFlight = 0;
  private flags = 0;
  private closeCallback = false;
  private closed = false;
  /** While calls that waited for it get to know: a large one must not begin the next attempt. */
  private failedOpening: { readonly route: SecondaryDriver; readonly failure: unknown } | null =
    null;
  /** Where the large call or stream frame that is arriving goes; null when it is skipped. */
  private largeTarget: DaemonLink | null = null;

  constructor(
    private readonly client: RelayClient,
    private readonly settings: RelaySettings,
    private readonly log: Logger,
  ) {
    this.held = new HeldCalls(client.gate);
    this.descriptors = new CallDescriptors(client.gate);
  }

  /** Opens the hypervisor's daemon. Rejects with RpcError or DaemonRefusal. */
  async open(endpoint: Endpoint, opening: OpenArguments): Promise<void> {
    // The client may have left while it was found out which daemon that is.
    if (this.closed) throw socketClosed;
    this.flags = opening.flags;
    this.opening = this.linkTo(endpoint, 'hypervisor');
    this.hypervisor = await this.openLink(this.opening, opening);
    this.links = [this.hypervisor];
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

  /** The descriptors of the call that follows; they belong to the relay from now on. False if that is none. */
  keepDescriptors(bytes: Buffer, start: number, descriptors: number[]): boolean {
    if (this.descriptors.keep(serialOf(bytes, start), descriptors)) return true;
    closeDescriptors(descriptors);
    this.client.close('sent two calls with descriptors and the same serial number');
    return false;
  }

  /**
   * A whole stream frame of the client: it belongs to a call that was forwarded, so it never waits. One of no stream is
   * dropped, as daemons do, since the stream may just have ended.
   */
  streamFrame(bytes: Buffer, start: number, end: number): void {
    const link = this.linkOf(bytes, start);
    if (link?.carries(bytes, start) === true) link.forward(bytes, start, end);
  }

  /** The header of a large frame; false asks to hold the client back until `retryLarge`. */
  largeFrame(bytes: Buffer, start: number): boolean {
    const type = typeOf(bytes, start);
    if (type === messageType.stream || type === messageType.streamHole) {
      const link = this.linkOf(bytes, start);
      this.largeTarget = link?.carries(bytes, start) === true ? link : null;
      this.largeTarget?.beginLarge();
      return true;
    }
    if (this.mustWait) return false;
    const route = this.routeOf(bytes, start);
    const failed = this.failedOpening?.route === route ? this.failedOpening : null;
    const link = failed === null ? this.linkFor(route) : null;
    if (link?.state === 'opening') return false;
    this.largeTarget = link?.state === 'open' ? link : null;
    this.beginLargeCall(bytes, start, failed?.failure ?? socketClosed);
    this.largeTarget?.beginLarge();
    return true;
  }

  /** `descriptors` are those of a call, with its last bytes. */
  largeBytes(
    bytes: Buffer,
    start: number,
    end: number,
    last: boolean,
    descriptors: number[] | null,
  ): void {
    const target = this.largeTarget;
    target?.forwardPart(bytes, start, end);
    if (descriptors !== null) {
      if (target === null) closeDescriptors(descriptors);
      else target.sendDescriptors(descriptors, true);
    }
    if (last) target?.endLarge();
  }

  /** A chunk from the client has been dealt with. */
  clientTurnEnded(): void {
    for (const link of this.links) {
      link.flush();
      if (link.queuedBytes > daemonHighWater) this.client.gate.close(link);
    }
  }

  /** The client has taken all that was queued for it. */
  clientDrained(): void {
    for (const link of this.links) link.release(clientHighWater);
  }

  /** The client can be sent frames of other daemons again. */
  clientReleased(): void {
    for (const link of this.links) {
      link.release(this.client);
      link.retry();
    }
  }

  /** Forwards calls that were held back, as far as the limit allows now. */
  pump(): void {
    while (
      this.hypervisor !== null &&
      this.inFlight < this.settings.maxCalls &&
      !this.held.isEmpty
    ) {
      const frame = this.held.next();
      this.dispatch(frame, 0, frame.length);
    }
    for (const link of this.links) link.flush();
    if (!this.mustWait) this.client.retryLarge();
  }

  /** Calls that were forwarded and not answered yet. */
  get pendingCalls(): number {
    return this.inFlight;
  }

  /** Whether a secondary daemon has been told for whom it works. */
  get hasSecondaries(): boolean {
    return this.secondaries.size + this.openings.size > 0;
  }

  /** Calls that wait for their turn. */
  get heldCalls(): number {
    return this.held.size;
  }

  close(): void {
    this.closed = true;
    this.settings.audit.close();
    this.opening?.close();
    for (const link of this.links) link.close();
    for (const { link } of this.openings.values()) link.close();
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
    this.client.outbox.release();
  }

  answered(link: DaemonLink, reply: Buffer, start: number): void {
    this.inFlight--;
    const succeeded = statusOf(reply, start) === status.ok;
    const { audit } = this.settings;
    if (audit.isFollowing) audit.ended(callOf(reply, start), succeeded ? 'ok' : 'error');
    if (this.log.debugging) {
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
    if (outbox.queuedBytes > clientHighWater) link.hold(clientHighWater);
    if (outbox.isBlockedFor(link)) link.hold(this.client);
  }

  drained(link: DaemonLink): void {
    this.client.gate.open(link);
  }

  /**
   * A daemon went away: its calls and streams end with an error that names it, and a client that asked to be told of
   * its connection's end is told if it lost the hypervisor or events it had asked for. Its other daemons go on; a
   * secondary one is opened again by the next call that needs it.
   */
  lost(link: DaemonLink, reason: string, calls: CallHeader[], streams: CallHeader[]): void {
    const { daemon, path, driver } = link.endpoint;
    const { id } = this.client;
    this.log.warning(
      `client ${id}: lost connection to ${daemon} at '${path}': ${reason}; its own log may say why`,
    );
    if (link.midLargeFrame) {
      this.client.close(`${daemon} went away in the middle of a frame`);
      return;
    }
    const error = new LostError(link.endpoint, reason);
    for (const call of calls) {
      this.settings.audit.ended(call, 'lost');
      this.send(encodeErrorReply(call, error));
    }
    for (const stream of streams) this.send(encodeStreamAbort(stream, error));
    this.inFlight -= calls.length;
    this.totals.errors += calls.length;
    if (link.role === 'secondary') {
      this.secondaries.delete(driver as SecondaryDriver);
      this.links = this.links.filter((other) => other !== link);
    }
    if (this.closeCallback && (link.role === 'hypervisor' || this.eventDrivers.has(driver))) {
      this.send(connectionClosedEvent);
    }
    this.eventDrivers.delete(driver);
    this.client.gate.open(link);
    this.pump();
  }

  private get mustWait(): boolean {
    return (
      this.hypervisor === null || !this.held.isEmpty || this.inFlight >= this.settings.maxCalls
    );
  }

  private dispatch(bytes: Buffer, start: number, end: number): void {
    const route = this.routeOf(bytes, start);
    const link = this.linkFor(route);
    if (link?.state === 'open') {
      this.inFlight++;
      this.noteBegin(bytes, start, link);
      link.forwardCall(bytes, start, end);
      if (!this.descriptors.isEmpty) {
        link.sendDescriptors(this.takeDescriptors(bytes, start), false);
      }
    } else if (link?.state === 'opening' && route !== 'hypervisor') {
      this.inFlight++;
      this.openings.get(route)?.waiting.push(Buffer.from(bytes.subarray(start, end)));
    } else {
      this.fail(bytes, start, socketClosed);
    }
  }

  /** `failure`: why there is no target, if there is none. */
  private beginLargeCall(bytes: Buffer, start: number, failure: unknown): void {
    this.totals.calls++;
    if (this.largeTarget === null) {
      this.fail(bytes, start, failure);
    } else {
      this.inFlight++;
      this.noteBegin(bytes, start, this.largeTarget);
      this.largeTarget.remember(bytes, start);
    }
  }

  /** A call is about to be forwarded. */
  private noteBegin(bytes: Buffer, start: number, { endpoint }: DaemonLink): void {
    const { audit } = this.settings;
    if (audit.isOn) audit.began(bytes, start, endpoint.daemon);
    if (this.log.debugging) this.logCall(callOf(bytes, start), `to ${endpoint.daemon}`);
  }

  private logCall({ program, procedure, serial }: CallHeader, what: string): void {
    const name = procedureName(program, procedure);
    this.log.debug(`client ${this.client.id}: ${name}, serial ${serial}: ${what}`);
  }

  private routeOf(bytes: Buffer, start: number): SecondaryDriver | 'hypervisor' {
    const route = procedureAt(programOf(bytes, start), procedureOf(bytes, start))?.route;
    return route === undefined || route === 'session' || this.isAbsent(route)
      ? 'hypervisor'
      : route;
  }

  private isAbsent(route: SecondaryDriver | 'hypervisor'): boolean {
    return route !== 'hypervisor' && this.absent.has(route);
  }

  /** The link that serves a route; for a secondary driver used for the first time, one that is being opened. */
  private linkFor(route: SecondaryDriver | 'hypervisor'): DaemonLink | null {
    if (route === 'hypervisor') return this.hypervisor;
    const known = this.secondaries.get(route) ?? this.openings.get(route)?.link;
    if (known !== undefined) return known;
    const { daemons } = this.settings;
    const driver = this.hypervisor?.endpoint.driver ?? '';
    const endpoint = daemons.secondary(driver, route, (this.flags & openReadOnly) !== 0);
    if (endpoint === null) {
      this.absent.add(route);
      return this.hypervisor;
    }
    const link = this.linkTo(endpoint, 'secondary');
    this.openings.set(route, { link, waiting: [] });
    this.openSecondary(route, link).catch((error: unknown) => this.client.close(String(error)));
    return link;
  }

  /** The open link that a stream frame belongs to. */
  private linkOf(bytes: Buffer, start: number): DaemonLink | null {
    const route = this.routeOf(bytes, start);
    return route === 'hypervisor' ? this.hypervisor : (this.secondaries.get(route) ?? null);
  }

  private async openSecondary(route: SecondaryDriver, link: DaemonLink): Promise<void> {
    const { daemons } = this.settings;
    let failure: unknown = null;
    try {
      const opening = { name: daemons.secondaryUri(route), flags: this.flags & openReadOnly };
      this.secondaries.set(route, await this.openLink(link, opening));
      this.links = [...this.links, link];
    } catch (error) {
      failure = error;
    }
    const waiting = this.openings.get(route)?.waiting ?? [];
    this.openings.delete(route);
    this.inFlight -= waiting.length;
    if (failure instanceof ConnectError && failure.reason.code === 'ENOENT') {
      this.log.debug(`${failure.path} does not exist: the hypervisor's daemon serves ${route}`);
      this.absent.add(route);
      failure = null;
    }
    if (failure !== null && !this.closed) {
      const { id } = this.client;
      this.log.warning(`client ${id}: cannot open ${link.endpoint.daemon}: ${explain(failure)}`);
    }
    for (const frame of waiting) {
      if (failure === null) this.dispatch(frame, 0, frame.length);
      else this.fail(frame, 0, failure);
    }
    this.failedOpening = failure === null ? null : { route, failure };
    this.pump();
    this.failedOpening = null;
  }

  private linkTo(endpoint: Endpoint, role: LinkRole): DaemonLink {
    const meter = this.settings.meter?.daemon(endpoint.daemon) ?? null;
    return new DaemonLink(endpoint, role, this, this.log, meter);
  }

  private async openLink(link: DaemonLink, opening: OpenArguments): Promise<DaemonLink> {
    const { connect, identity, openTimeoutSeconds } = this.settings;
    await link.open(connect, opening, identity(), openTimeoutSeconds);
    this.totals.daemons.add(link.endpoint.daemon);
    return link;
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
