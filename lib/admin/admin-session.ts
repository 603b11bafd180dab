import type { Logger } from '../logging/logger.js';
import { errorText } from '../error-text.js';
import { unexpectedStatus, unknownProgram } from '../rpc/call-errors.js';
import {
  callOf,
  encodeKeepalive,
  encodeReply,
  headerLength,
  keepalive,
  messageType,
  procedureOf,
  program,
  programOf,
  programVersion,
  status,
  statusOf,
  typeOf,
  versionOf,
} from '../rpc/frame.js';
import { collectLimit, Framer, type FrameSink } from '../rpc/framer.js';
import { KeepaliveWatch, type KeepaliveSettings } from '../rpc/keepalive-watch.js';
import { encodeErrorReply } from '../rpc/rpc-error.js';
import type { ByteStream, StreamListener } from '../transport/byte-stream.js';
import type { AdminClient } from './backend.js';
import { answerTo } from './errors.js';
import { adminProcedure } from './messages.js';
import { serveCall, type Administered } from './procedures.js';

/** What all admin sessions share. */
export interface AdminSessionSettings {
  /**
   * Calls of one client under way at a time; further ones wait. Source: admin_max_client_requests.
   */
  readonly maxCalls: number;
  /** Source: admin_keepalive_interval and admin_keepalive_count. */
  readonly keepalive: KeepaliveSettings;
}

/** Bytes a client may be behind before it is no longer read. */
const highWater = 1024 * 1024;

/**
 * One administrator's connection. No call is so long that its frame would not be collected whole.
 */
export class AdminSession implements FrameSink, StreamListener {
  private readonly framer = new Framer(this, collectLimit);
  /**
   * Whole frames that wait for their turn, in copies: at most what one read brought, since reading
   * pauses for them.
   */
  private waiting: Buffer[] = [];
  private underWay = 0;
  private behind = false;
  private isClosed = false;
  /**
   * Set once the client has shown that it knows keepalive messages: libvirt's admin clients do not
   * ask for them.
   */
  private watch: KeepaliveWatch | null = null;

  constructor(
    readonly client: AdminClient,
    private readonly stream: ByteStream,
    private readonly settings: AdminSessionSettings,
    private readonly administered: Administered,
    private readonly log: Logger,
    /** Called once. */
    private readonly onClosed: (session: AdminSession) => void,
  ) {}

  /** Begins to read. */
  start(): void {
    this.stream.listen(this);
  }

  /** Calls that wait for their turn. */
  get waitingCalls(): number {
    return this.waiting.length;
  }

  /** To be called about once a second. */
  tick(now: number): void {
    // Nothing can be heard of a client that is not read.
    if (this.watch === null || this.isPaused) return;
    switch (this.watch.step(now)) {
      case 'ping':
        this.send(encodeKeepalive(keepalive.ping));
        break;
      case 'give up':
        this.close('no answer to keepalive');
        break;
      case 'nothing':
        break;
    }
  }

  /**
   * Ends the connection once what is queued for the client has gone out. Does nothing the second
   * time.
   */
  close(reason: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    const { id, local } = this.client;
    this.log.info(`admin client ${id} (pid ${local?.pid ?? 0}): ${reason}`);
    this.framer.stop();
    this.waiting = [];
    this.stream.end();
    this.onClosed(this);
  }

  bytes(buffer: Buffer, length: number): void {
    this.watch?.heard();
    try {
      this.framer.push(buffer, length);
    } catch (error) {
      this.close(errorText(error));
    }
    this.flow();
  }

  drained(): void {
    this.behind = false;
    this.flow();
  }

  closed(error: Error | null): void {
    this.close(error === null ? 'it left' : error.message);
  }

  frame(bytes: Buffer, start: number, length: number): void {
    if (programOf(bytes, start) === program.keepalive) {
      this.heardKeepalive(bytes, start);
    } else if (typeOf(bytes, start) !== messageType.call) {
      this.close('it sent a frame that is no call');
    } else if (this.underWay < this.settings.maxCalls && this.waiting.length === 0) {
      this.serve(bytes, start, length);
    } else {
      this.waiting.push(Buffer.from(bytes.subarray(start, start + length)));
    }
  }

  /** Never called: the framer takes no frame that would not be collected. */
  largeFrame(): boolean {
    return true;
  }

  largeBytes(): void {
    this.close('it sent a frame that is too large');
  }

  private heardKeepalive(bytes: Buffer, start: number): void {
    this.watch ??= new KeepaliveWatch(this.settings.keepalive, performance.now());
    if (procedureOf(bytes, start) === keepalive.ping) this.send(encodeKeepalive(keepalive.pong));
  }

  private serve(bytes: Buffer, start: number, length: number): void {
    const call = callOf(bytes, start);
    // The call may be answered after the chunk is gone.
    const payload = Buffer.from(bytes.subarray(start + headerLength, start + length));
    this.underWay++;
    this.answer(bytes, start, payload)
      .then(
        (reply) => this.send(encodeReply(call, reply)),
        (error: unknown) => this.send(encodeErrorReply(call, answerTo(error))),
      )
      .finally(() => this.answered(call.procedure));
  }

  private async answer(bytes: Buffer, start: number, payload: Buffer): Promise<Buffer | undefined> {
    const call = callOf(bytes, start);
    if (call.program !== program.admin || versionOf(bytes, start) !== programVersion) {
      throw unknownProgram(call);
    }
    const callStatus = statusOf(bytes, start);
    if (callStatus !== status.ok) throw unexpectedStatus(callStatus);
    return await serveCall(call, payload, this.administered);
  }

  private answered(procedure: number): void {
    this.underWay--;
    if (procedure === adminProcedure.connectClose) this.close('it closed the connection');
    while (this.underWay < this.settings.maxCalls) {
      const next = this.waiting.shift();
      if (next === undefined) break;
      this.serve(next, 0, next.length);
    }
    this.flow();
  }

  private send(frame: Buffer): void {
    if (!this.isClosed) this.stream.write(frame);
  }

  private get isPaused(): boolean {
    return this.behind || this.waiting.length > 0;
  }

  /** Reads from the client as long as it takes its replies and no call of its has to wait. */
  private flow(): void {
    if (this.isClosed) return;
    if (this.stream.queuedBytes > highWater) this.behind = true;
    if (this.isPaused) this.stream.pause();
    else this.stream.resume();
  }
}
