import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  callOf,
  headerLength,
  maxFrameLength,
  maxFrameLengthBeforeLogin,
  messageType,
  programVersion,
  typeOf,
} from '../../lib/rpc/frame.js';
import { collectLimit } from '../../lib/rpc/framer.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf, FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { until } from '../peers/waiting.js';
import { clientFrame, wrongBeginning } from './grammar.js';
import { strangerMark } from './judging-daemon.js';
import type { Random } from './random.js';

/** A way in for fuzzed clients. */
export interface FuzzEntrance {
  readonly name: string;
  readonly connect: () => Promise<Socket>;
  /** Whoever comes this way has to log in, and does not. */
  readonly strangers: boolean;
  /** What a client must send before frames mean anything; what comes of it is then not judged. */
  readonly prelude?: (random: Random) => Buffer;
}

/** How a client ends its connection. */
const endings = ['destroy', 'destroy', 'halfClose', 'wait', 'close', 'stopInFrame'] as const;

/** Milliseconds that a proxy may take on a busy machine to do what it does at once. */
const patience = 20_000;

/** What a fuzzed client has sent, and what may still come of it. */
class Ledger {
  private readonly unanswered = new Map<string, number>();

  constructor(private readonly condemn: (why: string) => void) {}

  sent(frame: Buffer): void {
    const type = typeOf(frame, 0);
    if (type !== messageType.call && type !== messageType.callWithFds) return;
    const key = keyOf(callOf(frame, 0));
    this.unanswered.set(key, (this.unanswered.get(key) ?? 0) + 1);
  }

  /** Sees that the proxy sends nothing but answers, and no answer twice. */
  received(frame: ReceivedFrame): void {
    switch (frame.type) {
      case messageType.replyWithFds:
      case messageType.reply: {
        const left = this.unanswered.get(keyOf(frame)) ?? 0;
        if (left === 0) this.condemn(`a reply to no call: ${keyOf(frame)}`);
        this.unanswered.set(keyOf(frame), left - 1);
        // The fuzzed daemons have no descriptors to send: whatever else they announce is a lie that goes no further.
        if (frame.type === messageType.replyWithFds && !frame.payload.equals(encodeInt(0))) {
          this.condemn('a reply that announces descriptors which do not come');
        }
        break;
      }
      case messageType.message:
      case messageType.stream:
      case messageType.streamHole:
        if (frame.version !== programVersion) this.condemn('a frame of another version');
        break;
      default:
        this.condemn(`a frame of type ${frame.type} for a client`);
    }
  }
}

const keyOf = ({
  program: number,
  version = programVersion,
  procedure: called,
  serial,
}: ReturnType<typeof callOf>): string => `${number} ${version} ${called} ${serial}`;

/**
 * Plays one session of a client that follows the grammar only so far. Resolves with the number of frames it sent. What the
 * proxy does wrong is told to `condemn`.
 */
export async function playClient(
  random: Random,
  entrance: FuzzEntrance,
  driver: string,
  condemn: (why: string) => void,
): Promise<number> {
  const socket = await entrance.connect();
  const client = new FrameSocket(socket);
  const ledger = new Ledger(condemn);
  client.consume = (frame) => {
    ledger.received(frame);
    return true;
  };
  try {
    return await new ClientSession(random, client, entrance, driver, ledger, condemn).play();
  } finally {
    client.destroy();
  }
}

class ClientSession {
  constructor(
    private readonly random: Random,
    private readonly client: FrameSocket,
    private readonly entrance: FuzzEntrance,
    private readonly driver: string,
    private readonly ledger: Ledger,
    private readonly condemn: (why: string) => void,
  ) {}

  async play(): Promise<number> {
    const { random, client, entrance } = this;
    const reads = random.chance(0.9);
    if (!reads) client.pause();
    const frames = this.frames();
    const isEnded = random.chance(0.15);
    const ending = random.pick(endings);
    const tail = isEnded ? [wrongBeginning(random)] : [];
    if (ending === 'stopInFrame') tail.push(this.beginningOfFrame());
    const prelude = entrance.prelude?.(random);
    await this.send(Buffer.concat([...(prelude ? [prelude] : []), ...frames, ...tail]));
    await this.end(ending, reads && isEnded && prelude === undefined);
    return frames.length + tail.length;
  }

  private frames(): Buffer[] {
    const { random, entrance } = this;
    const driver = entrance.strangers ? strangerMark : this.driver;
    const opening = { name: `${driver}:///system`, flags: 0 };
    const open = frameOf(
      { procedure: procedure.connectOpen, serial: 1 },
      encodeOpenArguments(opening),
    );
    const count = random.below(random.pick([3, 10, 40]));
    const frames = Array.from({ length: count }, () => clientFrame(random, driver));
    const all = random.chance(0.75) ? [open, ...frames] : frames;
    for (const frame of all) this.ledger.sent(frame);
    return all;
  }

  private beginningOfFrame(): Buffer {
    const { random } = this;
    const frame = clientFrame(random, this.driver);
    if (random.chance(0.3)) {
      const longest = random.pick([maxFrameLengthBeforeLogin, maxFrameLength, 300_000]);
      frame.writeUInt32BE(longest, 0);
      this.ledger.sent(frame);
      return frame;
    }
    // A call that is passed on as it arrives is answered as soon as its header tells that it cannot be.
    if (frame.length > collectLimit) this.ledger.sent(frame);
    // In every field of the header, too.
    const most = random.chance(0.5) ? Math.min(frame.length, headerLength) : frame.length;
    return frame.subarray(0, random.below(most));
  }

  private async send(bytes: Buffer): Promise<void> {
    const { random, client } = this;
    for (const piece of random.pieces(bytes, random.pick([1, 2, 8, 60]))) {
      if (client.ended || client.socket.destroyed) return;
      client.socket.write(piece);
      if (random.chance(0.5)) await nextTurn();
    }
  }

  private async end(ending: (typeof endings)[number], mustEnd: boolean): Promise<void> {
    const { client } = this;
    switch (ending) {
      case 'destroy':
        return;
      case 'halfClose':
        if (client.ended) return;
        client.resume();
        client.socket.end();
        await this.expectEnd('the proxy does not close after a client has closed its side');
        return;
      case 'close':
        client.send(frameOf({ procedure: procedure.connectClose, serial: 999 }));
        this.ledger.sent(frameOf({ procedure: procedure.connectClose, serial: 999 }));
        await nextTurn();
        return;
      case 'wait':
        if (mustEnd) await this.expectEnd('a frame that no peer may send does not end a client');
        else await this.settled();
        return;
      case 'stopInFrame':
        await this.settled();
    }
  }

  private async expectEnd(otherwise: string): Promise<void> {
    await until(() => this.client.ended, { what: 'the end', deadlineMs: patience }).catch(() =>
      this.condemn(otherwise),
    );
  }

  /** Resolves when a PING that goes out has had its turn, or could have had it. */
  private async settled(): Promise<void> {
    const { client } = this;
    const closed = once(client.socket, 'close').catch(() => undefined);
    const data = once(client.socket, 'data').catch(() => undefined);
    await Promise.race([closed, data, nextTurn()]);
  }
}
