import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { keepalive, messageType, program, programVersion, status } from '../../lib/rpc/frame.js';
import { isForwardedProgram, procedureAt } from '../../lib/rpc/procedures.js';
import {
  authType,
  encodeAuthList,
  encodeInt,
  openReadOnly,
  procedure,
  readOpenArguments,
} from '../../lib/rpc/session-messages.js';
import { frameOf, FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';

/** Echo calls: their payload begins with this, which no fuzzed one does. */
export const echoMark = Buffer.from('an honest client');

export const echoOf = (payload: Buffer): Buffer =>
  Buffer.from(payload.map((byte, at) => (at < echoMark.length ? byte : byte ^ 0xff)));

/** In a URI or whatever else a frame carries: it must never come as far as a daemon. */
export const strangerMark = 'stranger';

/**
 * The proxy's own first calls on a connection, in this order; no other frame may come before their
 * replies.
 */
const opening = [procedure.authList, procedure.connectOpen, procedure.connectSetIdentity] as const;

/** Calls of the session that the proxy passes on all the same. */
const passedOn: ReadonlySet<number> = new Set([
  procedure.connectSupportsFeature,
  procedure.connectSetIdentity,
  procedure.connectRegisterCloseCallback,
  procedure.connectUnregisterCloseCallback,
]);

export interface JudgingDaemonOptions {
  /** `null`: the hypervisor's. */
  readonly driver: string | null;
  /** Clients that may only read come to another socket. */
  readonly readOnly: boolean;
  /** Told of every frame that should not have come, and why. */
  readonly condemn: (why: string) => void;
  /** What to do with a connection for which this name was set as the user's; false: nothing. */
  readonly takeOver?: (connection: FrameSocket, userName: string) => boolean;
}

/** A daemon that answers every call at once, and judges every frame that reaches it. */
export class JudgingDaemon {
  /** Frames that came. */
  frames = 0;
  private readonly sockets = new Set<FrameSocket>();

  private constructor(
    private readonly server: Server,
    options: JudgingDaemonOptions,
  ) {
    server.on('connection', (socket) => {
      const connection = new FrameSocket(socket);
      const judge = new Judge(connection, options);
      connection.consume = (frame) => {
        this.frames++;
        judge.arrived(frame);
        return true;
      };
      this.sockets.add(connection);
      void connection.end.then(() => {
        connection.destroy();
        this.sockets.delete(connection);
      });
    });
  }

  static async listen(path: string, options: JudgingDaemonOptions): Promise<JudgingDaemon> {
    const server = createServer().listen(path);
    await once(server, 'listening');
    return new JudgingDaemon(server, options);
  }

  get connections(): number {
    return this.sockets.size;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }
}

/** Judges and answers one connection. */
class Judge {
  private step = 0;
  /** Calls that opened streams. */
  private readonly streams = new Set<string>();

  constructor(
    private readonly connection: FrameSocket,
    private readonly options: JudgingDaemonOptions,
  ) {}

  arrived(frame: ReceivedFrame): void {
    const fault = this.faultOf(frame);
    if (fault !== null) {
      const { program: number, version, procedure: called, type, serial, status: state } = frame;
      const fields = [number, version, called, type, serial, state].join(' ');
      this.options.condemn(`${this.options.driver ?? 'hypervisor'}: ${fault} (${fields})`);
    }
    this.answer(frame);
  }

  private faultOf(frame: ReceivedFrame): string | null {
    const { program: number, version, procedure: called, type, status: state } = frame;
    if (frame.payload.includes(strangerMark))
      return 'a frame of a client that is not, or no longer, in';
    if (version !== programVersion) return 'another version';
    if (number === program.keepalive) {
      return called === keepalive.pong ? 'a PONG without a PING' : 'a PING of a client';
    }
    if (!isForwardedProgram(number)) return 'another program';
    const expected = opening[this.step];
    if (expected !== undefined) {
      if (called !== expected || type !== messageType.call) return 'a frame before the opening';
      return called === procedure.connectOpen ? this.faultOfOpening(frame) : null;
    }
    switch (type) {
      case messageType.call:
      case messageType.callWithFds:
        return state === status.ok ? this.faultOfCall(frame) : 'a call of another status';
      case messageType.stream:
      case messageType.streamHole:
        // What procedures that the table does not know open, the proxy cannot know.
        if (procedureAt(number, called) === undefined && this.options.driver === null) return null;
        return this.streams.has(streamKey(frame)) ? null : 'a frame of no stream';
      default:
        return 'a frame of a type that no client may send';
    }
  }

  private faultOfOpening({ payload }: ReceivedFrame): string | null {
    const { flags } = readOpenArguments(payload);
    const isReadOnly = (flags & openReadOnly) !== 0;
    if (isReadOnly === this.options.readOnly) return null;
    return isReadOnly ? 'a read-only client' : 'a client that may write';
  }

  private faultOfCall({ program: number, procedure: called }: ReceivedFrame): string | null {
    const row = procedureAt(number, called);
    const { driver } = this.options;
    if (row === undefined) return driver === null ? null : 'a call that the table does not know';
    if (row.route === 'session') {
      return passedOn.has(called) ? null : 'a call of the session';
    }
    if (row.route === (driver ?? 'hypervisor')) return null;
    return `a call for ${row.route}`;
  }

  private answer(frame: ReceivedFrame): void {
    if (frame.type !== messageType.call && frame.type !== messageType.callWithFds) {
      this.streamed(frame);
      return;
    }
    const { connection, options } = this;
    const { procedure: called, payload } = frame;
    const wasOpening = this.step < opening.length;
    this.step++;
    if (wasOpening && called === procedure.authList) {
      connection.reply(frame, encodeAuthList([authType.none]));
    } else if (called === procedure.connectSetIdentity) {
      connection.reply(frame);
      const user = /lane-\d+/.exec(payload.toString('latin1'))?.[0];
      if (user !== undefined) options.takeOver?.(connection, user);
    } else if (payload.subarray(0, echoMark.length).equals(echoMark)) {
      connection.reply(frame, echoOf(payload));
    } else if (procedureAt(frame.program, called)?.opensStream === true) {
      this.streams.add(streamKey(frame));
      connection.reply(frame);
    } else {
      connection.reply(frame, encodeInt(0));
    }
  }

  /** Every part is sent back; what ends the stream is confirmed. */
  private streamed(frame: ReceivedFrame): void {
    if (!this.streams.has(streamKey(frame))) return;
    if (frame.type === messageType.stream && frame.status !== status.continue) {
      this.streams.delete(streamKey(frame));
      this.connection.send(frameOf({ ...frame, status: status.ok }));
      return;
    }
    this.connection.send(frameOf(frame, frame.payload));
  }
}

const streamKey = ({ program: number, procedure: called, serial }: ReceivedFrame): string =>
  `${number} ${called} ${serial}`;
