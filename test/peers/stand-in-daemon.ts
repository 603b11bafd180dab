import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { messageType } from '../../lib/rpc/frame.js';
import type { RpcError } from '../../lib/rpc/rpc-error.js';
import { authType, encodeAuthList, encodeInt, procedure } from '../../lib/rpc/session-messages.js';
import { FrameSocket, type ReceivedFrame } from './frame-socket.js';
import { until } from './waiting.js';

/**
 * What a stand-in says to a call: a reply's payload, an error, or nothing, which leaves the call to
 * the test.
 */
export type Answer = (call: ReceivedFrame) => Buffer | RpcError | null;

/** The opening of a connection, as a real daemon answers it to root. */
const usualAnswers: readonly (readonly [number, Answer])[] = [
  [procedure.authList, () => encodeAuthList([authType.none])],
  [procedure.connectOpen, () => Buffer.alloc(0)],
  [procedure.connectSetIdentity, () => Buffer.alloc(0)],
  [procedure.connectSupportsFeature, () => encodeInt(0)],
  [procedure.connectRegisterCloseCallback, () => Buffer.alloc(0)],
];

/**
 * A daemon whose every answer the test decides. It answers what opens a connection; all other calls
 * stay in their connection's `frames` until the test takes and answers them.
 */
export class StandInDaemon {
  /** In the order in which they were accepted; those that have ended stay. */
  readonly connections: FrameSocket[] = [];
  /**
   * Every frame of every connection in the order of arrival, those that were answered at once
   * included.
   */
  readonly seen: ReceivedFrame[] = [];
  private readonly answers = new Map(usualAnswers);

  private constructor(
    readonly path: string,
    private readonly server: Server,
  ) {
    server.on('connection', (socket) => {
      const connection = new FrameSocket(socket);
      connection.consume = (frame) => this.arrived(connection, frame);
      this.connections.push(connection);
    });
  }

  /** Listens on a UNIX socket, in place of any file of that name. */
  static async listen(path: string): Promise<StandInDaemon> {
    rmSync(path, { force: true });
    const server = createServer();
    const daemon = new StandInDaemon(path, server);
    server.listen(path);
    await once(server, 'listening');
    return daemon;
  }

  /** Sets what is answered to a procedure of the remote program from now on. */
  answer(number: number, answer: Answer): void {
    this.answers.set(number, answer);
  }

  /** The nth connection, counted from 0, now or as soon as it is there. */
  connection(index = 0): Promise<FrameSocket> {
    return until(() => this.connections[index], { what: `connection ${index} to ${this.path}` });
  }

  /** Ends every connection at once and stops listening. */
  async stop(): Promise<void> {
    for (const connection of this.connections) connection.destroy();
    if (!this.server.listening) return;
    this.server.close();
    await once(this.server, 'close');
  }

  private arrived(connection: FrameSocket, frame: ReceivedFrame): boolean {
    this.seen.push(frame);
    if (frame.type !== messageType.call) return false;
    const said = this.answers.get(frame.procedure)?.(frame) ?? null;
    if (said !== null) connection.reply(frame, said);
    return said !== null;
  }
}
