import { createConnection, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  encodeFrame,
  encodeReply,
  headerLength,
  messageType,
  procedureOf,
  program,
  programOf,
  serialOf,
  status,
  statusOf,
  typeOf,
  versionOf,
  type FrameHeader,
} from '../../lib/rpc/frame.js';
import { encodeErrorReply, type RpcError } from '../../lib/rpc/rpc-error.js';

/** A frame as it arrived. The payload is a copy of its own. */
export interface ReceivedFrame extends Required<FrameHeader> {
  readonly payload: Buffer;
}

/**
 * Fields of a frame to send; what is left out is that of a call of the remote program with serial
 * 0.
 */
export type SentHeader = Partial<FrameHeader> & Pick<FrameHeader, 'procedure'>;

/** Milliseconds that `take` waits unless told otherwise. */
const usualPatience = 5000;

interface Waiter {
  readonly matches: (frame: ReceivedFrame) => boolean;
  readonly taken: (frame: ReceivedFrame) => void;
  readonly failed: (error: Error) => void;
}

/** Builds a frame. */
export function frameOf(header: SentHeader, payload?: Buffer): Buffer {
  return encodeFrame(
    { program: program.remote, type: messageType.call, serial: 0, status: status.ok, ...header },
    payload,
  );
}

/**
 * One end of a connection that speaks frames and nothing more: no login, no keepalive, no answer of
 * its own. It cuts frames by the length word alone, so that it can judge the proxy's framer.
 * `Stream` is a socket, or a layer on one.
 */
export class FrameSocket<Stream extends Duplex = Socket> {
  /** What arrived and nobody has taken yet, oldest first. */
  readonly frames: ReceivedFrame[] = [];
  /** Bytes that arrived so far, those of unfinished frames included. */
  bytesReceived = 0;
  /** The other end has closed, or the connection broke. */
  ended = false;
  /** Resolves when `ended` becomes true. */
  readonly end: Promise<void>;
  /** Sees every frame first; what it returns true for is not kept in `frames`. */
  consume: (frame: ReceivedFrame) => boolean = () => false;
  private readonly waiters = new Set<Waiter>();
  private chunks: Buffer[] = [];
  private chunksLength = 0;

  constructor(readonly socket: Stream) {
    socket.on('data', (chunk: Buffer) => this.received(chunk));
    // Some tests cut connections in the middle of a write.
    socket.on('error', () => undefined);
    this.end = new Promise((resolve) => {
      const ended = (): void => {
        this.ended = true;
        for (const { failed } of this.waiters) failed(new Error('The connection has ended.'));
        resolve();
      };
      socket.on('end', ended);
      socket.on('close', ended);
    });
  }

  /** Connects to a UNIX socket. Rejects with the system's error. */
  static async connectSocket(path: string): Promise<Socket> {
    const socket = createConnection({ path });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return socket;
  }

  /** Sends bytes as they are, in one write. */
  send(...frames: readonly Buffer[]): void {
    this.socket.write(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
  }

  /**
   * Sends bytes and resolves once the other end has room for more. Rejects when the connection ends
   * meanwhile.
   */
  async sendWithRegard(bytes: Buffer): Promise<void> {
    if (this.socket.write(bytes)) return;
    await Promise.race([
      new Promise<void>((resolve) => this.socket.once('drain', resolve)),
      this.end.then(() => Promise.reject(new Error('The connection ended during a write.'))),
    ]);
  }

  /** Answers a call. */
  reply(call: ReceivedFrame, answer: Buffer | RpcError = Buffer.alloc(0)): void {
    this.send(answer instanceof Error ? encodeErrorReply(call, answer) : encodeReply(call, answer));
  }

  /**
   * Takes the oldest frame that matches, now or when it arrives. Rejects when the connection ends
   * or `patience` milliseconds pass without it; `what` names it then.
   */
  take(
    matches: (frame: ReceivedFrame) => boolean,
    what: string,
    patience = usualPatience,
  ): Promise<ReceivedFrame> {
    const index = this.frames.findIndex(matches);
    if (index >= 0) return Promise.resolve(this.frames.splice(index, 1)[0]!);
    if (this.ended) return Promise.reject(new Error(`${what}: the connection has ended.`));
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.waiters.delete(waiter);
      };
      const waiter: Waiter = {
        matches,
        taken: (frame) => {
          settle();
          resolve(frame);
        },
        failed: (error) => {
          settle();
          reject(new Error(`${what}: ${error.message}`));
        },
      };
      const timer = setTimeout(
        () => waiter.failed(new Error(`nothing came within ${patience} ms.`)),
        patience,
      );
      this.waiters.add(waiter);
    });
  }

  /** Takes the oldest call of a procedure of the remote program. */
  takeCall(procedure: number, patience?: number): Promise<ReceivedFrame> {
    return this.take(
      (frame) => frame.procedure === procedure && frame.type === messageType.call,
      `a call of procedure ${procedure}`,
      patience,
    );
  }

  /** Does not read any more, so that the other end's writes pile up. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** Closes at once. */
  destroy(): void {
    this.socket.destroy();
  }

  private received(chunk: Buffer): void {
    this.bytesReceived += chunk.length;
    this.chunks.push(chunk);
    this.chunksLength += chunk.length;
    while (this.chunksLength >= 4) {
      if (this.chunks[0]!.length < 4) this.join();
      const length = this.chunks[0]!.readUInt32BE(0);
      if (length < headerLength) throw new Error(`A frame of ${length} bytes came, which is none.`);
      if (this.chunksLength < length) return;
      if (this.chunks[0]!.length < length) this.join();
      const bytes = this.chunks[0]!.subarray(0, length);
      this.chunks[0] = this.chunks[0]!.subarray(length);
      this.chunksLength -= length;
      if (this.chunks[0].length === 0) this.chunks.shift();
      this.arrived(decode(bytes));
    }
  }

  private join(): void {
    this.chunks = [Buffer.concat(this.chunks)];
  }

  private arrived(frame: ReceivedFrame): void {
    if (this.consume(frame)) return;
    for (const waiter of this.waiters) {
      if (!waiter.matches(frame)) continue;
      waiter.taken(frame);
      return;
    }
    this.frames.push(frame);
  }
}

function decode(bytes: Buffer): ReceivedFrame {
  return {
    program: programOf(bytes, 0),
    version: versionOf(bytes, 0),
    procedure: procedureOf(bytes, 0),
    type: typeOf(bytes, 0),
    serial: serialOf(bytes, 0),
    status: statusOf(bytes, 0),
    payload: Buffer.from(bytes.subarray(headerLength)),
  };
}
