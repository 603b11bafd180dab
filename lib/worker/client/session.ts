/**
 * The room of a client: from its first byte to its end, its login, what becomes of each of its
 * frames, and the calls that the proxy answers itself. What only one client has enters, and what
 * its stream needs; not the daemons, which it has through its relay.
 */
import { beginsAnonymous } from '../../control/messages.js';
import { transportTraits, type Transport } from '../../control/transports.js';
import { DescriptorError } from '../../rpc/descriptor-matcher.js';
import {
  callOf,
  encodeKeepalive,
  encodeReply,
  headerLength,
  keepalive,
  maxFrameLength,
  maxFrameLengthBeforeLogin,
  type CallHeader,
} from '../../rpc/frame.js';
import { Framer, FrameLengthError, type FrameSink } from '../../rpc/framer.js';
import { KeepaliveWatch } from '../../rpc/keepalive-watch.js';
import { encodeErrorReply } from '../../rpc/rpc-error.js';
import { openReadOnly, type OpenArguments } from '../../rpc/session-messages.js';
import type { ByteStream, StreamListener } from '../../transport/byte-stream.js';
import { LayeredStream, LayerError } from '../../transport/layered-stream.js';
import { Outbox } from '../../transport/outbox.js';
import { ReadGate } from '../../transport/read-gate.js';
import { explain } from '../daemon/errors.js';
import { alreadyOpen, encodeFailure, notOpen } from '../relay/answers.js';
import { clientHighWater, Relay, type RelayClient } from '../relay/relay.js';
import { CallAudit } from '../reports/call-audit.js';
import type { SessionFigures } from '../reports/reporter.js';
import { Admission } from './admission.js';
import { ClientDescriptors } from './client-descriptors.js';
import {
  judgeClientFrame,
  judgeForwarding,
  type ClientSituation,
  type ClientVerdict,
} from './frame-verdict.js';
import { Login, type LoginClient, type LoginResult } from './login.js';
import { openByUri } from './opening.js';
import { serveOwnCall, type OwnCallsSession } from './own-calls.js';
import { ClientProfile } from './profile.js';
import type { Arrival, SessionContext } from './session-context.js';

type SessionState = 'login' | 'loggedIn' | 'opening' | 'open' | 'closed';

/** One client's connection, from its first frame to its end. */
export class Session
  implements
    FrameSink,
    StreamListener,
    RelayClient,
    LoginClient,
    OwnCallsSession,
    ClientSituation,
    SessionFigures
{
  readonly id: number;
  outbox: Outbox;
  gate: ReadGate;
  private stream: ByteStream;
  private state: SessionState = 'login';
  readonly profile: ClientProfile;
  private readonly framer: Framer;
  private readonly login: Login;
  private readonly admission: Admission;
  private relay: Relay | null = null;
  private readonly descriptors: ClientDescriptors;
  private watch: KeepaliveWatch | null = null;
  private skipping = false;
  private bytesIn = 0;
  /** Bytes that went out before a SASL layer was there. */
  private bytesOutInClear = 0;

  constructor(
    private readonly arrival: Arrival,
    private readonly context: SessionContext,
  ) {
    const { introduction, stream, x509Name, externalSsf } = arrival;
    this.id = introduction.id;
    this.stream = stream;
    this.outbox = new Outbox(stream);
    this.gate = new ReadGate(stream);
    this.profile = new ClientProfile(introduction, x509Name);
    this.framer = new Framer(this, maxFrameLengthBeforeLogin);
    this.descriptors = new ClientDescriptors(this.framer, this);
    this.login = new Login(introduction, () => context.login(introduction, externalSsf), this);
    const seconds = context.configuration.cluster.login_timeout;
    const tooLate = `did not log in and open within ${seconds} seconds (login_timeout)`;
    this.admission = new Admission(arrival.arrivedAt + seconds * 1000 - performance.now(), () =>
      this.close(tooLate, 'warning'),
    );
  }

  /** Begins to read. A client whose socket asks for no login is in at once. */
  start(): void {
    if (this.arrival.introduction.auth === 'none') {
      this.loggedIn({ saslUserName: null, layer: null });
    }
    this.stream.listen(this);
  }

  /** Calls forwarded to daemons and not answered yet. */
  get pendingCalls(): number {
    return this.relay?.pendingCalls ?? 0;
  }

  /** Calls that wait for their turn. */
  get heldCalls(): number {
    return (this.relay?.heldCalls ?? 0) + (this.framer.isSuspended ? 1 : 0);
  }

  get transport(): Transport {
    return this.arrival.introduction.transport;
  }

  get receivedBytes(): number {
    return this.bytesIn;
  }

  get sentBytes(): number {
    return this.bytesOutInClear + this.outbox.writtenBytes;
  }

  /** To be called about once a second. */
  tick(now: number): void {
    if (this.gate.isClosed) {
      // Its turn may be long in coming, or never come: what it holds is not to wait for that.
      if (this.stream.isLeft) this.close('the client left');
      return;
    }
    if (this.watch === null) return;
    switch (this.watch.step(now)) {
      case 'ping':
        this.answer(encodeKeepalive(keepalive.ping));
        break;
      case 'give up':
        this.close('no answer to keepalive');
        break;
      case 'nothing':
        break;
    }
  }

  /** Whether it waits for a step of its login. */
  get isOurTurn(): boolean {
    return this.state === 'login' && this.login.isBusy;
  }

  /** Ends it, so that a new client gets its place. */
  evict(reason: string): void {
    this.admission.refusal = 'gave_way';
    this.close(reason);
  }

  /** Takes no more calls, while replies to those already forwarded still go out. */
  stopCalls(): void {
    this.gate.close('stopping');
  }

  /**
   * Ends the connection once what is queued for the client has gone out. Does nothing the second
   * time.
   */
  close(reason: string, level: 'info' | 'warning' = 'info'): void {
    if (!this.transition(['login', 'loggedIn', 'opening', 'open'], 'closed')) return;
    this.logEnd(reason, level);
    this.context.closed(this, this.admission.refusal);
  }

  // The client's stream

  bytes(buffer: Buffer, length: number): void {
    this.bytesIn += length;
    this.context.meter?.tick();
    this.watch?.heard();
    try {
      this.framer.push(buffer, length);
    } catch (error) {
      this.closeAfter(error);
      return;
    }
    this.relay?.clientTurnEnded();
    this.outbox.flush();
    // What the proxy itself answers must not pile up before a client that does not read.
    const { queuedBytes, deferredBytes } = this.outbox;
    if (queuedBytes + deferredBytes > clientHighWater) this.gate.close(this.outbox);
  }

  drained(): void {
    this.gate.open(this.outbox);
    this.relay?.clientDrained();
  }

  closed(error: Error | null): void {
    const { leftUnheard } = transportTraits[this.transport];
    if (this.bytesIn === 0 && leftUnheard !== null) this.close(leftUnheard, 'warning');
    else if (error === null) this.close('the client left');
    else this.close(error.message, isBreachOfRules(error) ? 'warning' : 'info');
  }

  // Frames: what becomes of each is decided in frame-verdict.ts and done here.

  frame(bytes: Buffer, start: number, length: number): void {
    const verdict = judgeClientFrame(bytes, start, length, this);
    if (this.state === 'login' && verdict.fate !== 'pong') this.context.clientsTurn(this.id);
    this.carryOut(verdict, bytes, start, length);
  }

  largeFrame(bytes: Buffer, start: number, length: number): boolean {
    const { relay } = this;
    const verdict = judgeClientFrame(bytes, start, length, this);
    this.skipping = verdict.fate !== 'call' && verdict.fate !== 'stream';
    if (this.skipping) this.carryOut(verdict, bytes, start, length);
    else if (relay?.large.begin(bytes, start) === false) {
      this.gate.close(this.framer);
      return false;
    }
    return true;
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.skipping) return;
    const descriptors = last ? this.descriptors.take() : null;
    this.relay?.large.pass(bytes, start, end, last, descriptors);
  }

  retryLarge(): void {
    if (!this.framer.isSuspended) return;
    try {
      if (this.framer.resume()) this.gate.open(this.framer);
    } catch (error) {
      this.closeAfter(error);
    }
  }

  // The login

  answer(frame: Buffer): void {
    this.outbox.send(this, frame);
    if (this.isOurTurn) this.context.clientsTurn(this.id);
  }

  loggedIn({ saslUserName, layer }: LoginResult): void {
    if (!this.transition(['login'], 'loggedIn')) return;
    const { id, profile, context } = this;
    profile.settle(saslUserName, context.rights);
    if (layer !== null) this.addLayer(layer);
    const { introduction } = this.arrival;
    const isNews = beginsAnonymous(introduction) || profile.isReadOnly !== introduction.readOnly;
    if (isNews) context.loggedIn(id, profile.proven);
  }

  refused(reason: string): void {
    // A client that is in already loses nothing by asking again in a way that is not offered.
    if (this.state !== 'login') return;
    this.context.log
      .for('access.login')
      .warning(`${this.profile.description}: login failed: ${reason}`);
    this.admission.refusal = 'login';
    this.close('login failed');
  }

  /**
   * The only place that changes the state, and has done what comes with the new one; false when the
   * change does not fit.
   */
  private transition(from: readonly SessionState[], to: SessionState): boolean {
    if (!from.includes(this.state)) return false;
    const { log } = this.context;
    if (log.debugging) log.debug(`${this.profile.description}: ${this.state} -> ${to}`);
    this.state = to;
    if (to === 'loggedIn') this.framer.limit = maxFrameLength;
    else if (to === 'open') this.admission.end();
    else if (to === 'closed') this.release();
    return true;
  }

  /**
   * Whatever follows passes through the layer; bytes that came in clear behind the login do not
   * count as such.
   */
  private addLayer(layer: NonNullable<LoginResult['layer']>): void {
    if (this.framer.midFrame) {
      this.close('sent bytes outside the SASL layer', 'warning');
      return;
    }
    this.stream = new LayeredStream(this.stream, layer);
    this.bytesOutInClear = this.outbox.writtenBytes;
    this.outbox = new Outbox(this.stream);
    this.gate = new ReadGate(this.stream);
    this.stream.listen(this);
  }

  private carryOut(verdict: ClientVerdict, bytes: Buffer, start: number, length: number): void {
    switch (verdict.fate) {
      case 'call':
        this.forward(bytes, start, length);
        break;
      case 'stream':
        this.relay?.streamFrame(bytes, start, start + length);
        break;
      case 'own':
        this.serveOwn(bytes, start, length);
        break;
      case 'login':
        this.login.serve(bytes, start, length);
        break;
      case 'pong':
        this.answer(encodeKeepalive(keepalive.pong));
        break;
      case 'answer':
        this.answer(encodeErrorReply(callOf(bytes, start), verdict.error));
        break;
      case 'refuse':
        this.refused(verdict.reason);
        break;
      case 'close':
        this.close(verdict.reason, 'warning');
        break;
      case 'drop':
        break;
    }
  }

  private serveOwn(bytes: Buffer, start: number, length: number): void {
    const payload = bytes.subarray(start + headerLength, start + length);
    if (serveOwnCall(this, callOf(bytes, start), payload)) return;
    this.carryOut(judgeForwarding(bytes, start, length, this), bytes, start, length);
  }

  private forward(bytes: Buffer, start: number, length: number): void {
    const { relay } = this;
    const descriptors = this.descriptors.take();
    if (descriptors !== null && relay?.keepDescriptors(bytes, start, descriptors) !== true) return;
    relay?.call(bytes, start, start + length);
  }

  // What verdicts and own calls depend on

  get phase(): ClientSituation['phase'] {
    if (this.state === 'login') return 'login';
    return this.relay === null ? 'unopened' : 'opened';
  }

  get isLoginBusy(): boolean {
    return this.login.isBusy;
  }

  get isSaslStepping(): boolean {
    return this.login.isSaslStepping;
  }

  get passesDescriptors(): boolean {
    return this.outbox.passesDescriptors;
  }

  get followsDescriptors(): boolean {
    return this.descriptors.isFollowing;
  }

  get offeredDescriptors(): number {
    return this.descriptors.offered;
  }

  get isOpened(): boolean {
    return this.relay !== null;
  }

  get hasSecondaries(): boolean {
    return this.relay?.hasSecondaries === true;
  }

  // Own calls

  watchKeepalive(): void {
    const { keepalive_interval: interval, keepalive_count: count } =
      this.context.configuration.conf;
    this.watch ??= new KeepaliveWatch({ interval, count }, performance.now());
  }

  expectDescriptors(): boolean {
    return this.descriptors.expect(this.stream);
  }

  open(call: CallHeader, { name, flags }: OpenArguments): void {
    if (!this.transition(['loggedIn'], 'opening')) throw alreadyOpen;
    const { configuration, daemons, connect, restarts, log, meter } = this.context;
    const relay = new Relay(this, {
      daemons,
      connect: (endpoint, attempt) => connect(this.id, endpoint, attempt),
      restarts,
      maxCalls: configuration.conf.max_client_requests,
      openTimeoutSeconds: configuration.cluster.open_timeout,
      identity: () => this.profile.parameters,
      audit: new CallAudit(this.context.audit, () => this.profile.audited),
      meter,
      log: log.for('rpc.relay'),
    });
    this.relay = relay;
    const openFlags = this.profile.isReadOnly ? flags | openReadOnly : flags;
    openByUri(relay, name ?? '', openFlags, this.context).then(
      () => {
        if (!this.transition(['opening'], 'open')) return;
        this.answer(encodeReply(call));
        relay.pump();
      },
      (error: unknown) => {
        if (!this.transition(['opening'], 'loggedIn')) return;
        this.relay = null;
        log.warning(`${this.profile.description}: cannot open '${name ?? ''}': ${explain(error)}`);
        this.answer(encodeFailure(call, error));
        relay.failHeld(notOpen);
        this.retryLarge();
      },
    );
  }

  /**
   * A frame of a length that no frame has ends the connection; anything else is a fault of ours.
   */
  private closeAfter(error: unknown): void {
    if (!(error instanceof FrameLengthError)) throw error;
    this.close(error.message, 'warning');
  }

  private release(): void {
    this.outbox.flush();
    this.outbox.discard();
    this.stream.end();
    this.admission.end();
    this.login.end();
    this.framer.stop();
    this.descriptors.close();
    this.relay?.close();
  }

  private logEnd(reason: string, level: 'info' | 'warning'): void {
    const { log } = this.context;
    if (!log.wants(level)) return;
    const seconds = ((performance.now() - this.arrival.arrivedAt) / 1000).toFixed(3);
    const work = this.relay === null ? 'nothing opened' : String(this.relay.totals);
    log[level](
      `${this.profile.description}: ${work}, ${this.bytesIn} bytes in, ${this.sentBytes} out, ${seconds} s: ${reason}`,
    );
  }
}

const isBreachOfRules = (error: Error): boolean =>
  error instanceof LayerError || error instanceof DescriptorError;
