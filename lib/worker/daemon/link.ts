import type { TypedParameter } from '../../rpc/typed-parameters.js';
import type { Logger } from '../../logging/logger.js';
import {
  encodeKeepalive,
  keepalive,
  messageType,
  procedureOf,
  program,
  programOf,
  programVersion,
  serialOf,
  status,
  statusOf,
  typeOf,
  versionOf,
  type CallHeader,
} from '../../rpc/frame.js';
import { closeDescriptors } from '../../native/descriptors.js';
import { DescriptorError } from '../../rpc/descriptor-matcher.js';
import { Framer, FrameLengthError, type FrameSink } from '../../rpc/framer.js';
import { isForwardedProgram, procedureAt, procedureName } from '../../rpc/procedures.js';
import { errorCode, errorDomain, RpcError } from '../../rpc/rpc-error.js';
import {
  authType,
  encodeIdentityArguments,
  encodeOpenArguments,
  procedure,
  readAuthList,
  type OpenArguments,
} from '../../rpc/session-messages.js';
import type { ByteStream, StreamListener } from '../../transport/byte-stream.js';
import { Outbox } from '../../transport/outbox.js';
import type { DaemonMeter } from '../reports/call-meter.js';
import { absent, CallTable } from './call-table.js';
import { DaemonConversation, isUnreadable } from './conversation.js';
import type { Endpoint } from './directory.js';
import {
  ConnectError,
  failureOf,
  LostError,
  systemErrorText,
  TimeoutError,
  unreadableError,
} from './errors.js';
import { DescriptorIntake } from '../../transport/descriptor-intake.js';
import { ReadGate } from '../../transport/read-gate.js';

/** Bytes a daemon may be behind before its client is no longer read and its own PINGs are no longer answered. */
export const daemonHighWater = 1024 * 1024;

/** What a link needs of the relay it belongs to. */
export interface LinkOwner {
  /** A frame for the client. */
  fromDaemon(link: DaemonLink, bytes: Buffer, start: number, end: number): void;
  /** A whole reply for the client, with its descriptors, which belong to the owner from now on. */
  replyWithDescriptors(
    link: DaemonLink,
    bytes: Buffer,
    start: number,
    end: number,
    descriptors: number[],
  ): void;
  /** The descriptors of the large reply that has just been passed on whole. */
  largeReplyDescriptors(link: DaemonLink, descriptors: number[]): void;
  /** May the link begin a frame whose bytes are still arriving? If not, the relay calls `retry()` later. */
  claimClient(link: DaemonLink): boolean;
  /** The large frame that was claimed for is through. */
  releaseClient(link: DaemonLink): void;
  /** A call of the link was answered; the reply's header lies in `bytes` from `start`. */
  answered(link: DaemonLink, bytes: Buffer, start: number): void;
  /** A chunk from the daemon has been dealt with: time to send what was collected. */
  turnEnded(link: DaemonLink): void;
  /** The daemon takes bytes again. */
  drained(link: DaemonLink): void;
  /** The connection is gone, `reason` says why. `calls` and `streams` will get no answer from the daemon. */
  lost(link: DaemonLink, reason: string, calls: CallHeader[], streams: CallHeader[]): void;
}

/** Opens a byte stream to an endpoint; where session mode starts a missing daemon. Rejects with the system's error. */
export type Connect = (endpoint: Endpoint, signal: AbortSignal) => Promise<ByteStream>;

export const linkStates = ['opening', 'open', 'closed'] as const;
export type LinkState = (typeof linkStates)[number];

/** A hypervisor link may carry any call and any event, a secondary one those of its driver. */
export type LinkRole = 'hypervisor' | 'secondary';

/**
 * One client's connection to one daemon. It opens it (log in, CONNECT_OPEN, identity), and from then on relays: frames
 * go to the daemon through `forward`, what the daemon sends goes to the owner.
 */
export class DaemonLink implements FrameSink, StreamListener {
  readonly calls = new CallTable();
  /** Streams that a call opened, or is about to, and the daemon has not ended. */
  private readonly streams = new CallTable();
  private readonly framer = new Framer(this);
  private readonly conversation = new DaemonConversation((frame) => this.stream?.write(frame));
  /** While it is being opened; aborting it ends that. */
  private attempt: AbortController | null = null;
  private stream: ByteStream | null = null;
  private gate: ReadGate | null = null;
  private box: Outbox | null = null;
  /** Who sends the parts of a large frame, to the outbox. */
  private readonly large = {};
  /** Once the daemon may send descriptors. */
  private intake: DescriptorIntake | null = null;
  private current: LinkState = 'opening';
  /** The large frame arriving is for nobody. */
  private skipping = false;
  private warned = false;

  constructor(
    readonly endpoint: Endpoint,
    readonly role: LinkRole,
    private readonly owner: LinkOwner,
    private readonly log: Logger,
    /** Null when nobody wants to know. */
    private readonly meter: DaemonMeter | null = null,
  ) {}

  get state(): LinkState {
    return this.current;
  }

  /** Bytes the daemon has not taken yet. */
  get queuedBytes(): number {
    return this.stream?.queuedBytes ?? 0;
  }

  /**
   * Connects and opens. Each step waits for the reply of the one before, and no call of the client is forwarded before
   * the daemon knows for whom. Rejects with an RpcError or a DaemonRefusal; the link is closed then.
   */
  async open(
    connect: Connect,
    opening: OpenArguments,
    identity: readonly TypedParameter[],
    timeoutSeconds: number,
  ): Promise<void> {
    const { endpoint } = this;
    const attempt = new AbortController();
    this.attempt = attempt;
    const timer = setTimeout(() => {
      attempt.abort(new TimeoutError(endpoint, timeoutSeconds));
    }, timeoutSeconds * 1000);
    const { signal } = attempt;
    signal.addEventListener('abort', () => this.conversation.fail(signal.reason as Error));
    try {
      await this.connect(connect, signal);
      await this.logIn();
      await this.conversation.ask(procedure.connectOpen, encodeOpenArguments(opening));
      await this.conversation.ask(procedure.connectSetIdentity, encodeIdentityArguments(identity));
      this.conversation.throwIfFailed();
      this.current = 'open';
      this.meter?.opened();
    } catch (error) {
      this.noteFailure(error);
      this.close();
      throw isUnreadable(error) ? unreadableError(endpoint) : error;
    } finally {
      clearTimeout(timer);
      this.attempt = null;
    }
  }

  /** Forwards a whole call frame and remembers it until its reply. */
  forwardCall(bytes: Buffer, start: number, end: number): void {
    this.remember(bytes, start);
    this.box?.forward(this.owner, bytes, start, end);
  }

  /** Forwards a whole frame that has no reply. */
  forward(bytes: Buffer, start: number, end: number): void {
    this.box?.forward(this.owner, bytes, start, end);
  }

  /** Forwards part of a large frame, between `beginLarge()` and `endLarge()`. */
  forwardPart(bytes: Buffer, start: number, end: number): void {
    this.box?.forward(this.large, bytes, start, end);
  }

  /** Sends the descriptors of the call, a large one or not, that was forwarded last; they belong to the link from now on. */
  sendDescriptors(descriptors: number[], isLarge: boolean): void {
    if (this.box === null) closeDescriptors(descriptors);
    else this.box.sendDescriptors(isLarge ? this.large : this.owner, descriptors);
  }

  /**
   * Whether a stream frame, from either side, belongs to a stream that is open here. What a newer libvirt's procedures open
   * nobody knows: their frames are the hypervisor's, as the calls are.
   */
  carries(bytes: Buffer, start: number): boolean {
    const programNumber = programOf(bytes, start);
    const number = procedureOf(bytes, start);
    if (procedureAt(programNumber, number) === undefined) return this.role === 'hypervisor';
    return this.streams.has(programNumber, number, serialOf(bytes, start));
  }

  /** Remembers a call whose frame is forwarded in parts. */
  remember(bytes: Buffer, start: number): void {
    const programNumber = programOf(bytes, start);
    const number = procedureOf(bytes, start);
    const serial = serialOf(bytes, start);
    this.calls.add(programNumber, number, serial, this.meter === null ? 0 : this.meter.now);
    // Now, not at the reply: a daemon may send a stream's first and even its last frame before that.
    const row = procedureAt(programNumber, number);
    if (row?.opensStream === true) this.streams.add(programNumber, number, serial, 0);
    // A procedure of a newer libvirt may be one of these too.
    if (row === undefined || row.descriptors !== null) this.expectDescriptors();
  }

  /**
   * Keeps all other frames out of a large one that is forwarded in parts, until `endLarge()`: the proxy's own, and calls
   * that waited for another daemon and come here because there is none.
   */
  beginLarge(): void {
    this.box?.claim(this.large);
  }

  endLarge(): void {
    this.box?.release();
  }

  /** Sends what was forwarded since the last time. */
  flush(): void {
    this.box?.flush();
  }

  /** Stops reading from the daemon for a reason of the owner's. */
  hold(reason: unknown): void {
    this.gate?.close(reason);
  }

  release(reason: unknown): void {
    this.gate?.open(reason);
  }

  /** The client can take a large frame again. */
  retry(): void {
    if (!this.framer.isSuspended) return;
    try {
      if (this.framer.resume()) this.release(this.framer);
    } catch (error) {
      this.failed(error);
    }
    this.owner.turnEnded(this);
  }

  /** Closes without telling the owner. */
  close(): void {
    if (this.current === 'closed') return;
    if (this.meter !== null && this.current === 'open') {
      this.meter.closed();
      this.meter.lost(this.calls.takeAll());
    }
    this.current = 'closed';
    this.attempt?.abort(new Error('the link was closed'));
    this.framer.stop();
    this.intake?.close();
    this.box?.discard();
    this.stream?.destroy();
  }

  frame(bytes: Buffer, start: number, length: number): void {
    if (this.current !== 'open') {
      this.conversation.frame(bytes, start, length);
      return;
    }
    if (!this.admit(bytes, start)) return;
    const descriptors = this.intake?.take() ?? null;
    const end = start + length;
    if (descriptors === null) this.owner.fromDaemon(this, bytes, start, end);
    else this.owner.replyWithDescriptors(this, bytes, start, end, descriptors);
  }

  largeFrame(bytes: Buffer, start: number): boolean {
    const wasOpen = this.current === 'open';
    if (wasOpen && !this.owner.claimClient(this)) {
      this.hold(this.framer);
      return false;
    }
    // What is not admitted may end the link.
    this.skipping = !wasOpen || !this.admit(bytes, start);
    if (this.skipping && wasOpen) this.owner.releaseClient(this);
    return true;
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (this.skipping) return;
    this.owner.fromDaemon(this, bytes, start, end);
    if (!last) return;
    const descriptors = this.intake?.take() ?? null;
    if (descriptors !== null) this.owner.largeReplyDescriptors(this, descriptors);
    this.owner.releaseClient(this);
  }

  bytes(buffer: Buffer, length: number): void {
    this.meter?.tick();
    try {
      this.framer.push(buffer, length);
    } catch (error) {
      this.failed(error);
    }
    this.owner.turnEnded(this);
  }

  drained(): void {
    this.owner.drained(this);
  }

  closed(error: Error | null): void {
    const reason = error === null ? 'End of file while reading data' : systemErrorText(error);
    const wasOpen = this.current === 'open';
    this.conversation.fail(new LostError(this.endpoint, reason));
    if (this.current === 'closed') return;
    const calls = this.calls.takeAll();
    this.close();
    if (!wasOpen) return;
    this.noteLoss(calls);
    // A stream whose call has no reply yet ends with that call.
    for (const call of calls) this.streams.take(call.program, call.procedure, call.serial);
    this.owner.lost(this, reason, calls, this.streams.takeAll());
  }

  /** In the middle of a large frame that the client has had part of. */
  get midLargeFrame(): boolean {
    return this.framer.midLargeFrame && !this.skipping;
  }

  private async connect(connect: Connect, signal: AbortSignal): Promise<void> {
    const { daemon, path } = this.endpoint;
    try {
      this.stream = await connect(this.endpoint, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason as Error;
      throw new ConnectError(daemon, path, error as NodeJS.ErrnoException);
    }
    this.gate = new ReadGate(this.stream);
    this.box = new Outbox(this.stream);
    this.stream.listen(this);
  }

  private noteFailure(error: unknown): void {
    const why = failureOf(error);
    // A host without a secondary daemon is no failure: the hypervisor's takes its place.
    const isAbsent = error instanceof ConnectError && error.reason.code === 'ENOENT';
    if (why !== null && !(isAbsent && this.role === 'secondary')) this.meter?.failed(why);
  }

  private noteLoss(calls: readonly CallHeader[]): void {
    // What the owner forwards now is of this moment.
    this.meter?.tick();
    this.meter?.failed('lost');
    this.meter?.lost(calls);
  }

  private async logIn(): Promise<void> {
    const types = readAuthList(await this.conversation.ask(procedure.authList));
    if (types.includes(authType.none) || types.length === 0) return;
    if (types.includes(authType.polkit)) {
      await this.conversation.ask(procedure.authPolkit);
      return;
    }
    const { daemon, path } = this.endpoint;
    throw new RpcError(
      errorCode.authenticationFailed,
      errorDomain.rpc,
      `${daemon} at '${path}' asks for SASL on its own socket; set its auth_unix_rw and auth_unix_ro to "none" or "polkit"`,
    );
  }

  /** Decides whether a frame of the daemon goes to the client, and keeps account of calls and streams. */
  private admit(bytes: Buffer, start: number): boolean {
    const type = typeOf(bytes, start);
    const programNumber = programOf(bytes, start);
    const number = procedureOf(bytes, start);
    const serial = serialOf(bytes, start);
    if (versionOf(bytes, start) !== programVersion) {
      return this.refuse('a frame of an unknown version', programNumber, number);
    }
    switch (type) {
      case messageType.reply:
      case messageType.replyWithFds: {
        if (type === messageType.replyWithFds && this.intake === null) {
          return this.refuseDescriptors(programNumber, number);
        }
        const startedAt = this.calls.take(programNumber, number, serial);
        if (startedAt === absent) {
          return this.refuse('a reply to no call', programNumber, number);
        }
        const succeeded = statusOf(bytes, start) === status.ok;
        this.meter?.answered(programNumber, number, startedAt, succeeded);
        if (!succeeded) this.streams.take(programNumber, number, serial);
        this.owner.answered(this, bytes, start);
        return true;
      }
      case messageType.stream:
      case messageType.streamHole:
        if (!this.carries(bytes, start)) {
          return this.refuse('a frame of no stream', programNumber, number);
        }
        if (type === messageType.stream && statusOf(bytes, start) !== status.continue) {
          this.streams.take(programNumber, number, serial);
        }
        return true;
      case messageType.message:
        return this.admitMessage(programNumber, number);
      default:
        return this.refuse(`a frame of type ${type}`, programNumber, number);
    }
  }

  private admitMessage(programNumber: number, number: number): boolean {
    if (programNumber === program.keepalive) {
      if (number === keepalive.ping) this.answerPing();
      return false;
    }
    const event = procedureAt(programNumber, number);
    if (event?.isEvent === false || !isForwardedProgram(programNumber)) {
      return this.refuse('an event that is none', programNumber, number);
    }
    if (this.role === 'secondary' && event !== undefined && event.route !== this.endpoint.driver) {
      return this.refuse("another driver's event", programNumber, number);
    }
    return true;
  }

  /**
   * PONGs must not pile up before a daemon that asks and does not read: what waits for it already tells it as much. Not
   * reading from it instead would end in a deadlock, as libvirt's daemons take no more of an upload while a download of
   * the same connection is stuck.
   */
  private answerPing(): void {
    const waiting = this.queuedBytes + (this.box?.deferredBytes ?? 0);
    if (waiting <= daemonHighWater) this.box?.send(this, encodeKeepalive(keepalive.pong));
  }

  /** Its descriptors are lost, and the bytes they came with are not told from frames. */
  private refuseDescriptors(programNumber: number, number: number): false {
    const name = procedureName(programNumber, number);
    this.failed(new DescriptorError(`sent descriptors that a reply to ${name} does not have`));
    return false;
  }

  private refuse(what: string, programNumber: number, number: number): false {
    const { daemon, path } = this.endpoint;
    const line = `${daemon} at '${path}' sent ${what} (${procedureName(programNumber, number)}): dropped`;
    if (this.warned) this.log.debug(line);
    else this.log.warning(line);
    this.warned = true;
    return false;
  }

  /** A broken rule of the wire ends the connection; anything else is a fault of ours. */
  private failed(error: unknown): void {
    if (!(error instanceof FrameLengthError) && !(error instanceof DescriptorError)) throw error;
    const { daemon, path } = this.endpoint;
    this.log.error(`${daemon} at '${path}' ${error.message}: connection closed`);
    this.closed(error);
  }

  private expectDescriptors(): void {
    const passage = this.stream?.passage ?? null;
    if (this.intake !== null || passage === null) return;
    this.intake = new DescriptorIntake(messageType.replyWithFds, this.framer, this);
    passage.receive(this.intake);
  }
}
