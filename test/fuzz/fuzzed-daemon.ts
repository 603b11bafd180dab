import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { encodeKeepalive, keepalive, messageType, status } from '../../lib/rpc/frame.js';
import {
  authType,
  encodeAuthList,
  encodeInt,
  encodeString,
  procedure,
} from '../../lib/rpc/session-messages.js';
import { frameOf, FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { daemonFrame, errorPayload, wrongBeginning } from './grammar.js';
import { Random } from './random.js';

/** What a daemon does wrong when a call has come. */
const faults = [
  'silence',
  'odd',
  'odd',
  'odd',
  'twice',
  'unreadable',
  'unreadable error',
  'garbage',
  'wrong length',
  'half a frame',
  'half a large frame',
  'flood of pings',
  'deafness',
  'end',
] as const;

/**
 * A daemon that makes a mistake now and then, as `seed` decides; between those it answers as it
 * should.
 */
export class FuzzedDaemon {
  /** Decides all connections to come. */
  seed = '';
  /** Frames that were sent and are not as they should be. */
  faults = 0;
  private readonly sockets = new Set<FrameSocket>();

  private constructor(private readonly server: Server | null) {
    server?.on('connection', (socket) => this.play(new FrameSocket(socket), 'hypervisor'));
  }

  static async listen(path: string): Promise<FuzzedDaemon> {
    const server = createServer().listen(path);
    await once(server, 'listening');
    return new FuzzedDaemon(server);
  }

  /** Goes on with a connection. `name` tells those of one seed apart. */
  play(connection: FrameSocket, name: string): void {
    const random = new Random(`${this.seed}/${name}`);
    this.sockets.add(connection);
    connection.consume = (frame) => {
      this.arrived(random, connection, frame);
      return true;
    };
    void connection.end.then(() => {
      connection.destroy();
      this.sockets.delete(connection);
    });
  }

  /** Ends every connection. */
  forget(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.forget();
    if (this.server === null) return;
    this.server.close();
    await once(this.server, 'close');
  }

  private arrived(random: Random, connection: FrameSocket, frame: ReceivedFrame): void {
    if (frame.type !== messageType.call) return;
    const isOpening = isStep(frame.procedure);
    if (!random.chance(isOpening ? 0.15 : 0.5)) {
      connection.reply(frame, rightAnswer(frame));
      return;
    }
    this.faults++;
    this.fail(random, connection, frame);
    // Sometimes the right answer comes all the same.
    if (random.chance(0.5) && !connection.socket.destroyed) {
      connection.reply(frame, rightAnswer(frame));
    }
  }

  private fail(random: Random, connection: FrameSocket, frame: ReceivedFrame): void {
    const reply = { ...frame, type: messageType.reply, status: status.ok };
    switch (random.pick(faults)) {
      case 'silence':
        return;
      case 'odd':
        for (let count = random.below(4); count >= 0; count--) {
          for (const piece of random.pieces(daemonFrame(random, frame), 4)) connection.send(piece);
        }
        return;
      case 'twice':
        connection.send(frameOf(reply), frameOf(reply));
        return;
      case 'unreadable':
        connection.send(frameOf(reply, random.bytes(random.below(40))));
        return;
      case 'unreadable error':
        connection.send(frameOf({ ...reply, status: status.error }, errorPayload(random)));
        return;
      case 'garbage':
        connection.send(random.bytes(1 + random.below(2000)));
        return;
      case 'wrong length':
        connection.send(wrongBeginning(random));
        return;
      case 'half a frame':
        connection.send(frameOf(reply, Buffer.alloc(400)).subarray(0, random.below(400)));
        connection.socket.end();
        return;
      case 'half a large frame': {
        const large = frameOf(reply, Buffer.alloc(600_000));
        connection.send(large.subarray(0, random.below(large.length)));
        if (random.chance(0.5)) connection.socket.end();
        return;
      }
      case 'flood of pings':
        connection.send(
          Buffer.concat(
            Array.from({ length: 1 + random.below(5000) }, () => encodeKeepalive(keepalive.ping)),
          ),
        );
        return;
      case 'deafness':
        connection.pause();
        return;
      case 'end':
        connection.destroy();
    }
  }
}

const isStep = (number: number): boolean =>
  number === procedure.authList ||
  number === procedure.connectOpen ||
  number === procedure.connectSetIdentity;

function rightAnswer({ procedure: called }: ReceivedFrame): Buffer {
  if (called === procedure.authList) return encodeAuthList([authType.none]);
  if (isStep(called)) return Buffer.alloc(0);
  return called === procedure.connectSupportsFeature ? encodeInt(0) : encodeString('fuzz');
}
