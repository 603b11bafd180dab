import type { TypedParameter } from '../../rpc/typed-parameters.js';
import { closeDescriptors } from '../../native/descriptors.js';
import { encodeKeepalive, keepalive, messageType } from '../../rpc/frame.js';
import { Framer, type FrameSink } from '../../rpc/framer.js';
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
import { DescriptorIntake } from '../../transport/descriptor-intake.js';
import { Outbox } from '../../transport/outbox.js';
import { ReadGate } from '../../transport/read-gate.js';
import { DaemonConversation } from './conversation.js';
import type { Endpoint } from './directory.js';
import { BreachError, ConnectError, endReason, isBreach, LostError } from './errors.js';

/** What may be given up; its signal is aborted then, and is not made where none asks for it. */
export interface Attempt {
  readonly signal: AbortSignal;
}

/**
 * Opens a byte stream to an endpoint; where session mode starts a missing daemon. Rejects with the
 * system's error.
 */
export type Connect = (endpoint: Endpoint, attempt: Attempt) => Promise<ByteStream>;

/** What a connection is opened with. */
export interface Opening {
  readonly connect: Connect;
  readonly open: OpenArguments;
  readonly identity: readonly TypedParameter[];
}

/** Whose connection it is. Frames are told as they come, those of the opening included. */
export interface ConnectionOwner extends FrameSink {
  /** Bytes have arrived; the frames in them will be told. */
  onBytes(): void;
  /** The frames of one chunk have been told. */
  onTurnEnded(): void;
  /** The daemon takes bytes again. */
  onDrained(): void;
  /**
   * The connection has ended, or must, because of a FrameLengthError or DescriptorError; null when
   * the daemon just ended it.
   */
  onEnd(connection: DaemonConnection, error: Error | null): void;
}

/**
 * Bytes a daemon may be behind before its client is no longer read and its own PINGs are no longer
 * answered.
 */
export const daemonHighWater = 1024 * 1024;

/** Who sends the parts of a large frame, and who all others, to the outbox. */
const large = {};
const others = {};

/**
 * One socket with one daemon process: it is opened (log in, CONNECT_OPEN, identity), and from then
 * on carries frames.
 */
export class DaemonConnection implements StreamListener, Attempt {
  readonly conversation = new DaemonConversation((frame) => this.stream?.write(frame));
  private readonly framer: Framer;
  private stream: ByteStream | null = null;
  private gate: ReadGate | null = null;
  private box: Outbox | null = null;
  /** Once the daemon may send descriptors. */
  private intake: DescriptorIntake | null = null;
  private abortion: AbortController | null = null;

  constructor(
    private readonly owner: ConnectionOwner,
    private readonly endpoint: Endpoint,
  ) {
    this.framer = new Framer(owner);
  }

  /**
   * Connects and opens. Each step waits for the reply of the one before, since a daemon may serve
   * calls in parallel. Rejects with an RpcError or a DaemonRefusal, or the reason for which it is
   * given up; it is to be closed then.
   */
  async open({ connect, open, identity }: Opening): Promise<void> {
    const { conversation } = this;
    await this.connect(connect);
    await this.logIn();
    await conversation.ask(procedure.connectOpen, encodeOpenArguments(open));
    await conversation.ask(procedure.connectSetIdentity, encodeIdentityArguments(identity));
    conversation.throwIfFailed();
  }

  /** Ends an opening that is under way; the first reason counts. */
  giveUp(reason: Error): void {
    this.conversation.fail(reason);
    this.abortion?.abort(reason);
  }

  /** Aborted when connecting is given up. Most are connected at once, and none asks for it. */
  get signal(): AbortSignal {
    this.abortion ??= new AbortController();
    return this.abortion.signal;
  }

  /** Bytes the daemon has not taken yet. */
  get queuedBytes(): number {
    return this.stream?.queuedBytes ?? 0;
  }

  /** Whether the daemon's descriptors are looked for. */
  get followsDescriptors(): boolean {
    return this.intake !== null;
  }

  /** Inside a large frame whose first bytes have been told. */
  get midLargeFrame(): boolean {
    return this.framer.midLargeFrame;
  }

  /** Forwards a whole frame. */
  forward(bytes: Buffer, start: number, end: number): void {
    this.box?.forward(others, bytes, start, end);
  }

  /** Forwards part of a large frame, between `beginLarge()` and `endLarge()`. */
  forwardPart(bytes: Buffer, start: number, end: number): void {
    this.box?.forward(large, bytes, start, end);
  }

  /**
   * PONGs must not pile up before a daemon that asks and does not read: what waits for it already
   * tells it as much. Not reading from it instead would end in a deadlock, as libvirt's daemons
   * take no more of an upload while a download of the same connection is stuck.
   */
  answerPing(): void {
    if (this.box === null || this.queuedBytes + this.box.deferredBytes > daemonHighWater) return;
    this.box.send(others, encodeKeepalive(keepalive.pong));
  }

  /**
   * Sends the descriptors of the frame, a large one or not, that was forwarded last; they belong to
   * the connection from now on.
   */
  sendDescriptors(descriptors: number[], isLarge: boolean): void {
    if (this.box === null) closeDescriptors(descriptors);
    else this.box.sendDescriptors(isLarge ? large : others, descriptors);
  }

  /** Keeps all other frames out of a large one that is forwarded in parts, until `endLarge()`. */
  beginLarge(): void {
    this.box?.claim(large);
  }

  endLarge(): void {
    this.box?.release();
  }

  /** Sends what was forwarded since the last time. */
  flush(): void {
    this.box?.flush();
  }

  /** Stops reading for a reason. */
  hold(reason: unknown): void {
    this.gate?.close(reason);
  }

  release(reason: unknown): void {
    this.gate?.open(reason);
  }

  /** The owner may take the large frame now that it refused before. */
  retry(): void {
    if (!this.framer.isSuspended) return;
    this.whileCutting(() => {
      if (this.framer.resume()) this.release(this.framer);
    });
    this.owner.onTurnEnded();
  }

  /** Stops reading until `retry()`, because the owner refuses a large frame. */
  suspend(): void {
    this.hold(this.framer);
  }

  /** From now on the daemon may send descriptors. */
  expectDescriptors(): void {
    const passage = this.stream?.passage ?? null;
    if (this.intake !== null || passage === null) return;
    const { owner } = this;
    this.intake = new DescriptorIntake(messageType.replyWithFds, this.framer, {
      frame: (bytes, start, length) => owner.frame(bytes, start, length),
      largeFrame: (bytes, start, length) => owner.largeFrame(bytes, start, length),
      largeBytes: (bytes, start, end, last) => owner.largeBytes(bytes, start, end, last),
      bytes: (bytes, length) => this.bytes(bytes, length),
      drained: () => this.drained(),
      closed: (error) => this.closed(error),
    });
    this.framer.redirect(this.intake);
    passage.receive(this.intake);
  }

  /**
   * Descriptors of the frame that is being told; they belong to the taker. Null when it has none.
   */
  takeDescriptors(): number[] | null {
    return this.intake?.take() ?? null;
  }

  /** Closes at once, without telling the owner. */
  close(): void {
    this.framer.stop();
    this.intake?.close();
    this.box?.discard();
    this.stream?.destroy();
  }

  bytes(buffer: Buffer, length: number): void {
    this.owner.onBytes();
    this.whileCutting(() => this.framer.push(buffer, length));
    this.owner.onTurnEnded();
  }

  drained(): void {
    this.owner.onDrained();
  }

  closed(error: Error | null): void {
    const reason = endReason(error);
    this.conversation.fail(new (isBreach(error) ? BreachError : LostError)(this.endpoint, reason));
    this.owner.onEnd(this, error);
  }

  /** A broken rule of the wire ends the connection; anything else is a fault of ours. */
  private whileCutting(cut: () => void): void {
    try {
      cut();
    } catch (error) {
      if (!isBreach(error)) throw error;
      this.closed(error);
    }
  }

  private async connect(connect: Connect): Promise<void> {
    const { daemon, path } = this.endpoint;
    try {
      this.stream = await connect(this.endpoint, this);
    } catch (error) {
      this.conversation.throwIfFailed();
      throw new ConnectError(daemon, path, error as NodeJS.ErrnoException);
    }
    this.conversation.throwIfFailed();
    this.gate = new ReadGate(this.stream);
    this.box = new Outbox(this.stream);
    this.stream.listen(this);
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
}
