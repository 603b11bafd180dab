import { once } from 'node:events';
import { createServer, type ListenOptions, type Server } from 'node:net';
import { join } from 'node:path';
import { messageType, status } from '../../lib/rpc/frame.js';
import {
  authType,
  encodeAuthList,
  encodeInt,
  encodeString,
  procedure,
} from '../../lib/rpc/session-messages.js';
import { peerCredentials } from '../../lib/native/peer.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import { frameOf, FrameSocket, type ReceivedFrame } from './frame-socket.js';

/** What the stress is made of: calls that real daemons serve too, with a content of their own. */
export const stressCall = {
  hostname: 59,
  echo: 135,
  upload: 208,
  download: 209,
  registerEvents: 316,
  deregisterEvents: 317,
  event: 318,
} as const;

/** What CONNECT_GET_HOSTNAME answers. */
export const stressHostname = 'stress.example';

/** Bytes of one frame of a stream, and milliseconds between two. */
export const streamPart = 24 * 1024;
const streamInterval = 4;

/** Milliseconds between the events that one connection is sent. */
const eventInterval = 5;

/**
 * The answer to an echo call: its payload with every byte behind the client's number turned over.
 */
export function echoOf(payload: Buffer): Buffer {
  const answer = Buffer.from(payload);
  for (let at = 4; at < answer.length; at++) answer[at] = answer[at]! ^ 0xff;
  return answer;
}

/** The bytes of a stream from `offset` on: every four of them tell where they belong. */
export function streamBytes(offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at += 4) bytes.writeUInt32BE(offset + at, at);
  return bytes;
}

/** One upload that is under way. */
interface Upload {
  received: number;
  intact: boolean;
}

/**
 * The daemons behind a proxy under stress, virtqemud and virtstoraged in one: it answers echo
 * calls, sends numbered events, sends and takes streams of known bytes, and knows which worker
 * process each client was served by.
 */
export class StressDaemon {
  /** The worker process that forwarded a client's calls, by the client's number. */
  readonly workers = new Map<number, number>();
  /** What clients' echo calls would have been answered, by the client's number. */
  private readonly withheld = new Map<number, (() => void)[]>();
  private readonly sockets = new Set<FrameSocket>();
  /** How many events each connection was sent since it registered. */
  private readonly events = new Map<FrameSocket, number>();
  private readonly uploads = new Map<FrameSocket, Upload>();
  private readonly ticker: NodeJS.Timeout;

  private constructor(
    readonly directory: string,
    private readonly servers: readonly Server[],
  ) {
    for (const server of servers) {
      server.on('connection', (socket) => {
        const { pid } = peerCredentials(handleOf(socket).fd);
        const connection = new FrameSocket(socket);
        connection.consume = (frame) => this.arrived(connection, frame, pid);
        this.sockets.add(connection);
        void connection.end.then(() => this.gone(connection));
      });
    }
    this.ticker = setInterval(() => this.sendEvents(), eventInterval);
  }

  /** Listens in place of virtqemud and virtstoraged in `directory`. */
  static async listen(directory: string): Promise<StressDaemon> {
    const servers = ['qemu', 'storage'].map((driver) =>
      createServer().listen(openTo(socketOf(directory, driver))),
    );
    await Promise.all(servers.map((server) => once(server, 'listening')));
    return new StressDaemon(directory, servers);
  }

  /** The `[routes]` section of a cluster's ini file that leads here. */
  get routes(): string {
    const lines = ['qemu', 'storage'].map(
      (driver) => `${driver} = ${socketOf(this.directory, driver)}\n`,
    );
    return `[routes]\n${lines.join('')}`;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.sockets.size;
  }

  /** Bytes that the other ends do not take. */
  get queuedBytes(): number {
    return [...this.sockets].reduce((sum, { socket }) => sum + socket.writableLength, 0);
  }

  /** Leaves a client's echo calls unanswered from now on. */
  withhold(client: number): void {
    this.withheld.set(client, []);
  }

  /** How many of a client's calls wait for their answer. */
  waiting(client: number): number {
    return this.withheld.get(client)?.length ?? 0;
  }

  /** Answers what waits. */
  release(client: number): void {
    const answers = this.withheld.get(client) ?? [];
    this.withheld.delete(client);
    for (const answer of answers) answer();
  }

  /** Ends every connection and listens anew, as daemons that are restarted. */
  async restart(): Promise<void> {
    await this.close();
    ['qemu', 'storage'].forEach((driver, index) =>
      this.servers[index]!.listen(openTo(socketOf(this.directory, driver))),
    );
    await Promise.all(this.servers.map((server) => once(server, 'listening')));
  }

  /** Ends every connection and stops listening. */
  async stop(): Promise<void> {
    clearInterval(this.ticker);
    await this.close();
  }

  private async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await Promise.all(
      this.servers.map(async (server) => {
        server.close();
        await once(server, 'close');
      }),
    );
  }

  private gone(connection: FrameSocket): void {
    connection.destroy();
    this.sockets.delete(connection);
    this.events.delete(connection);
    this.uploads.delete(connection);
  }

  private arrived(connection: FrameSocket, frame: ReceivedFrame, worker: number): boolean {
    if (frame.type === messageType.stream) this.uploaded(connection, frame);
    if (frame.type !== messageType.call) return true;
    switch (frame.procedure) {
      case procedure.authList:
        connection.reply(frame, encodeAuthList([authType.none]));
        break;
      case procedure.connectSupportsFeature:
        connection.reply(frame, encodeInt(0));
        break;
      case stressCall.hostname:
        connection.reply(frame, encodeString(stressHostname));
        break;
      case stressCall.echo:
        this.echo(connection, frame, worker);
        break;
      case stressCall.registerEvents:
        this.events.set(connection, 0);
        connection.reply(frame);
        break;
      case stressCall.deregisterEvents:
        connection.reply(frame, encodeInt(this.events.get(connection) ?? 0));
        this.events.delete(connection);
        break;
      case stressCall.upload:
        this.uploads.set(connection, { received: 0, intact: true });
        connection.reply(frame);
        break;
      case stressCall.download:
        connection.reply(frame);
        void this.send(connection, frame, frame.payload.readUInt32BE(0));
        break;
      default:
        connection.reply(frame);
    }
    return true;
  }

  private echo(connection: FrameSocket, frame: ReceivedFrame, worker: number): void {
    const client = frame.payload.readUInt32BE(0);
    this.workers.set(client, worker);
    const answer = (): void => connection.reply(frame, echoOf(frame.payload));
    const withheld = this.withheld.get(client);
    if (withheld === undefined) answer();
    else withheld.push(answer);
  }

  private sendEvents(): void {
    for (const [connection, sent] of this.events) {
      const header = { procedure: stressCall.event, type: messageType.message };
      connection.send(frameOf(header, encodeInt(sent + 1)));
      this.events.set(connection, sent + 1);
    }
  }

  /** Sends `length` bytes of a stream at a steady pace, then its end. */
  private async send(connection: FrameSocket, call: ReceivedFrame, length: number): Promise<void> {
    const header = { ...call, type: messageType.stream, status: status.continue };
    try {
      for (let at = 0; at < length; at += streamPart) {
        const part = streamBytes(at, Math.min(streamPart, length - at));
        await connection.sendWithRegard(frameOf(header, part));
        await new Promise((resolve) => setTimeout(resolve, streamInterval));
        if (connection.ended) return;
      }
      connection.send(frameOf(header), frameOf({ ...header, status: status.ok }));
    } catch {
      // The connection ended: the client's side judges that.
    }
  }

  private uploaded(connection: FrameSocket, frame: ReceivedFrame): void {
    const upload = this.uploads.get(connection);
    if (upload === undefined || frame.procedure !== stressCall.upload) return;
    const { payload } = frame;
    if (frame.status === status.continue) {
      upload.intact &&= payload.equals(streamBytes(upload.received, payload.length));
      upload.received += payload.length;
      return;
    }
    // The stream's end carries, which no real one does, what had arrived.
    const verdict = Buffer.concat([encodeInt(upload.intact ? 1 : 0), encodeInt(upload.received)]);
    const { program, procedure: number, serial } = frame;
    const header = { program, procedure: number, serial, type: messageType.stream };
    connection.send(frameOf(header, verdict));
    this.uploads.delete(connection);
  }
}

function socketOf(directory: string, driver: string): string {
  return join(directory, `virt${driver}d-sock`);
}

/** Every user may connect: workers need not be root. */
const openTo = (path: string): ListenOptions => ({ path, readableAll: true, writableAll: true });
