import { beginsAnonymous, type Transport } from '../../control/messages.js';
import { undecodable } from '../../rpc/call-errors.js';
import { DescriptorError } from '../../rpc/descriptor-matcher.js';
import {
  callOf,
  encodeKeepalive,
  encodeReply,
  headerLength,
  isPing,
  keepalive,
  maxFrameLength,
  maxFrameLengthBeforeLogin,
  messageType,
  procedureOf,
  program,
  programOf,
  typeOf,
  type CallHeader,
} from '../../rpc/frame.js';
import { Framer, FrameLengthError, type FrameSink } from '../../rpc/framer.js';
import { KeepaliveWatch } from '../../rpc/keepalive-watch.js';
import { procedureAt } from '../../rpc/procedures.js';
import { encodeErrorReply, RpcError } from '../../rpc/rpc-error.js';
import {
  feature,
  openReadOnly,
  procedure,
  readFeature,
  readIdentityArguments,
  readOpenArguments,
} from '../../rpc/session-messages.js';
import { XdrError } from '../../rpc/xdr-reader.js';
import type { ByteStream, StreamListener } from '../../transport/byte-stream.js';
import { LayeredStream, LayerError } from '../../transport/layered-stream.js';
import { Outbox } from '../../transport/outbox.js';
import { Admission } from './admission.js';
import {
  alreadyOpen,
  encodeFailure,
  encodeFeature,
  identityDenied,
  identityTooLate,
  isOwnProcedure,
  judgeFrame,
  noDescriptors,
  notOpen,
  notOpenFor,
  ownFeatures,
} from '../relay/answers.js';
import { CallAudit } from '../reports/call-audit.js';
import { ClientDescriptors } from './client-descriptors.js';
import { ClientProfile } from './profile.js';
import { explain } from '../daemon/errors.js';
import { Login, type LoginClient, type LoginResult } from './login.js';
import { openByUri } from './opening.js';
import { ReadGate } from '../../transport/read-gate.js';
import { clientHighWater, Relay, type RelayClient } from '../relay/relay.js';
import type { SessionFigures } from '../reports/reporter.js';
import type { Arrival, SessionContext } from './session-context.js';

export const sessionStates = ['login', 'loggedIn', 'opening', 'open', 'closing', 'closed'] as const;
export type SessionState = (typeof sessionStates)[number];

const leftUnheard =
  'left right after the TLS handshake: it may not trust our certificate, or have come for another host name';

/** One client's connection, from its first frame to its end. */
export class Session
  implements FrameSink, StreamListener, RelayClient, LoginClient, SessionFigures
{
  readonly id: number;
  outbox: Outbox;
  gate: ReadGate;
  private stream: ByteStream;
  private state: SessionState = 'login';
  private readonly profile: ClientProfile;
  private readonly framer: Framer;
  private readonly login: Login;
  private readonly admission: Admission;
  private readonly readOnly: boolean;
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
    this.readOnly = introduction.readOnly;
    this.stream = stream;
    this.outbox = new Outbox(stream);
    this.gate = new ReadGate(stream);
    this.profile = new ClientProfile(introduction, x509Name);
    this.framer = new Framer(this, maxFrameLengthBeforeLogin);
    this.descriptors = new ClientDescriptors(this.framer, this);
    this.login = new Login(introduction, () => context.login(introduction, externalSsf), this);
    const seconds = context.configuration.cluster.login_timeout;
    const tooLate = `did not log in and open within ${seconds} seconds (login_timeout)`;
    this.admission = new Admission(
      arrival.arrivedAt + seconds * 1000 - performance.now(),
      () => this.close(tooLate, 'warning'),
      () => context.spoke(this.id),
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

  /** Takes no more calls, while replies to those already forwarded still go out. */
  stopCalls(): void {
    this.gate.close('stopping');
  }

  /** Ends the connection once what is queued for the client has gone out. Does nothing the second time. */
  close(reason: string, level: 'info' | 'warning' = 'info'): void {
    if (!this.transition(['login', 'loggedIn', 'opening', 'open'], 'closing')) return;
    this.outbox.flush();
    this.outbox.discard();
    this.stream.end();
    this.release();
    this.logEnd(reason, level);
    this.transition(['closing'], 'closed');
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
    if (this.isUnheard) this.close(leftUnheard, 'warning');
    else if (error === null) this.close('the client left');
    else this.close(error.message, isBreachOfRules(error) ? 'warning' : 'info');
  }

  // Frames

  frame(bytes: Buffer, start: number, length: number): void {
    if (this.state === 'login' && this.login.isStepping) {
      this.refused('sent more while a step of its SASL login was under way');
      return;
    }
    if (this.isKeepalive(bytes, start)) return;
    if (this.state !== 'login') {
      if (this.isValid(bytes, start)) this.route(bytes, start, length);
    } else {
      this.admission.spoke();
      if (!this.isValid(bytes, start) || this.asksForKeepalive(bytes, start, length)) return;
      this.login.frame(bytes, start, length);
    }
  }

  largeFrame(bytes: Buffer, start: number, length: number): boolean {
    const { relay } = this;
    this.skipping = !this.isValid(bytes, start) || this.isRefusedLarge(bytes, start, length);
    if (this.skipping || relay === null || relay.largeFrame(bytes, start)) return true;
    this.gate.close(this.framer);
    return false;
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.skipping) return;
    const descriptors = last ? this.descriptors.take() : null;
    this.relay?.largeBytes(bytes, start, end, last, descriptors);
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
  }

  loggedIn({ saslUserName, layer }: LoginResult): void {
    if (!this.transition(['login'], 'loggedIn')) return;
    this.profile.learnSaslUser(saslUserName);
    this.framer.limit = maxFrameLength;
    if (layer !== null) this.addLayer(layer);
    const { id, profile } = this;
    if (beginsAnonymous(this.arrival.introduction)) this.context.loggedIn(id, profile.proven);
  }

  refused(reason: string): void {
    // A client that is in already loses nothing by asking again in a way that is not offered.
    if (this.state !== 'login') return;
    this.context.log.warning(`${this.profile.description}: login failed: ${reason}`);
    this.admission.refusal = 'login';
    this.close('login failed');
  }

  /** The only place that changes the state; false when the change does not fit. */
  private transition(from: readonly SessionState[], to: SessionState): boolean {
    if (!from.includes(this.state)) return false;
    const { log } = this.context;
    if (log.debugging) log.debug(`${this.profile.description}: ${this.state} -> ${to}`);
    this.state = to;
    return true;
  }

  /** Whatever follows passes through the layer; bytes that came in clear behind the login do not count as such. */
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

  private isKeepalive(bytes: Buffer, start: number): boolean {
    if (programOf(bytes, start) !== program.keepalive) return false;
    if (isPing(bytes, start)) this.answer(encodeKeepalive(keepalive.pong));
    return true;
  }

  /** Sorts out what no daemon should see: answers calls that are wrong, drops all else. */
  private isValid(bytes: Buffer, start: number): boolean {
    const verdict = judgeFrame(bytes, start);
    if (verdict instanceof RpcError) this.answer(encodeErrorReply(callOf(bytes, start), verdict));
    return verdict === 'pass';
  }

  private route(bytes: Buffer, start: number, length: number): void {
    const { relay } = this;
    const type = typeOf(bytes, start);
    if (type === messageType.stream || type === messageType.streamHole) {
      relay?.streamFrame(bytes, start, start + length);
      return;
    }
    if (this.isOwnCall(bytes, start, length) || !this.passesDescriptors(bytes, start, length))
      return;
    if (this.state === 'opening' || this.state === 'open') {
      const descriptors = this.descriptors.take();
      if (descriptors !== null && relay?.keepDescriptors(bytes, start, descriptors) !== true)
        return;
      relay?.call(bytes, start, start + length);
      return;
    }
    const call = callOf(bytes, start);
    this.answer(encodeErrorReply(call, notOpenFor(call)));
  }

  /** Answers large calls that no daemon is to get; large stream data without a daemon is dropped. */
  private isRefusedLarge(bytes: Buffer, start: number, length: number): boolean {
    const type = typeOf(bytes, start);
    if (type === messageType.stream || type === messageType.streamHole) return this.relay === null;
    const call = callOf(bytes, start);
    const isOwn = call.program === program.remote && isOwnProcedure(call.procedure);
    if (!isOwn && this.relay !== null) return !this.passesDescriptors(bytes, start, length);
    this.answer(encodeErrorReply(call, isOwn ? undecodable : notOpen));
    return true;
  }

  /** Answers the calls that are for the proxy itself; false for those of the daemons. */
  private isOwnCall(bytes: Buffer, start: number, length: number): boolean {
    if (programOf(bytes, start) !== program.remote) return false;
    const number = procedureOf(bytes, start);
    if (!isOwnProcedure(number)) return false;
    const call = callOf(bytes, start);
    const payload = bytes.subarray(start + headerLength, start + length);
    try {
      switch (number) {
        case procedure.connectOpen:
          this.open(call, payload);
          return true;
        case procedure.connectClose:
          this.answer(encodeReply(call));
          this.close('the client closed it');
          return true;
        case procedure.connectSupportsFeature:
          return this.answerFeature(call, readFeature(payload));
        case procedure.connectSetIdentity:
          this.assumeIdentity(payload);
          return false;
        default:
          this.login.frame(bytes, start, length);
          return true;
      }
    } catch (error) {
      if (!(error instanceof XdrError) && !(error instanceof RpcError)) throw error;
      this.answer(encodeFailure(call, error instanceof XdrError ? undecodable : error));
      return true;
    }
  }

  /** The one question besides the login's own that a client may ask before it is in. */
  private asksForKeepalive(bytes: Buffer, start: number, length: number): boolean {
    return (
      procedureOf(bytes, start) === procedure.connectSupportsFeature &&
      typeOf(bytes, start) === messageType.call &&
      this.isOwnCall(bytes, start, length)
    );
  }

  private answerFeature(call: CallHeader, number: number): boolean {
    if (number === feature.programKeepalive) {
      this.watch ??= new KeepaliveWatch(
        {
          interval: this.context.configuration.conf.keepalive_interval,
          count: this.context.configuration.conf.keepalive_count,
        },
        performance.now(),
      );
    } else if (this.relay === null || !ownFeatures.has(number)) {
      return false;
    }
    this.answer(
      encodeFeature(call, number !== feature.fdPassing || this.descriptors.expect(this.stream)),
    );
    return true;
  }

  /** Root may speak for others, as a proxy in front of this one does; then it does so to every daemon. */
  private assumeIdentity(payload: Buffer): void {
    if (!this.profile.maySpeakForOthers) throw identityDenied;
    if (this.relay === null) return;
    if (this.relay.hasSecondaries) throw identityTooLate;
    this.profile.speakFor(readIdentityArguments(payload));
  }

  /**
   * Whether a call's descriptors have come with it, and those of its reply can reach the client. Else a call that brings
   * some ends the connection, since they are lost, and one that fetches some is refused.
   */
  private passesDescriptors(bytes: Buffer, start: number, length: number): boolean {
    const isTheirs = typeOf(bytes, start) === messageType.callWithFds;
    if (isTheirs && !this.descriptors.cameWith(bytes, start, length)) {
      const reason =
        'sent a call with descriptors without having been told that they can be passed';
      this.close(reason, 'warning');
      return false;
    }
    const row = procedureAt(programOf(bytes, start), procedureOf(bytes, start));
    if (row?.descriptors !== 'reply' || this.outbox.passesDescriptors) return true;
    this.answer(encodeErrorReply(callOf(bytes, start), noDescriptors));
    return false;
  }

  private open(call: CallHeader, payload: Buffer): void {
    const { name, flags } = readOpenArguments(payload);
    if (!this.transition(['loggedIn'], 'opening')) throw alreadyOpen;
    const { configuration, daemons, connect, log } = this.context;
    const relay = new Relay(
      this,
      {
        daemons,
        connect,
        maxCalls: configuration.conf.max_client_requests,
        openTimeoutSeconds: configuration.cluster.open_timeout,
        identity: () => this.profile.parameters,
        audit: new CallAudit(this.context.audit, () => this.profile.audited),
        meter: this.context.meter,
      },
      log.for('relay'),
    );
    this.relay = relay;
    this.outbox.onReleased = () => {
      // Otherwise the client is behind, and `drained` will come.
      if (this.outbox.queuedBytes <= clientHighWater) this.gate.open(this.outbox);
      relay.clientReleased();
    };
    const openFlags = this.readOnly ? flags | openReadOnly : flags;
    openByUri(relay, name ?? '', openFlags, this.context).then(
      () => {
        if (!this.transition(['opening'], 'open')) return;
        this.admission.end();
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

  /** A frame of a length that no frame has ends the connection; anything else is a fault of ours. */
  private closeAfter(error: unknown): void {
    if (!(error instanceof FrameLengthError)) throw error;
    this.close(error.message, 'warning');
  }

  private release(): void {
    this.admission.end();
    this.login.end();
    this.framer.stop();
    this.descriptors.close();
    this.relay?.close();
  }

  /** A TLS client that was told to go ahead and has said nothing. */
  private get isUnheard(): boolean {
    return this.arrival.introduction.transport === 'tls' && this.bytesIn === 0;
  }

  private logEnd(reason: string, level: 'info' | 'warning'): void {
    const { log } = this.context;
    const seconds = ((performance.now() - this.arrival.arrivedAt) / 1000).toFixed(3);
    const work = this.relay === null ? 'nothing opened' : String(this.relay.totals);
    log[level](
      `${this.profile.description}: ${work}, ${this.bytesIn} bytes in, ${this.sentBytes} out, ${seconds} s: ${reason}`,
    );
  }
}

const isBreachOfRules = (error: Error): boolean =>
  error instanceof LayerError || error instanceof DescriptorError;
