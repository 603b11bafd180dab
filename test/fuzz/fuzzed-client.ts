import { once } from 'node:events';
import type { Duplex } from 'node:stream';
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
import { LayerError } from '../../lib/transport/layered-stream.js';
import { frameOf, FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { until } from '../peers/waiting.js';
import { clientFrame, outcastFrames, wrongBeginning } from './grammar.js';
import { strangerMark } from './judging-daemon.js';
import type { Passage } from './layers.js';
import type { Random } from './random.js';

/** A way in for fuzzed clients. */
export interface FuzzEntrance {
  readonly name: string;
  readonly connect: (random: Random) => Promise<Passage>;
  /** Whoever comes this way has to log in, and does not. */
  readonly strangers: boolean;
  /**
   * What a client plays before the grammar; told of every call that it sends. Resolves with the
   * number of frames.
   */
  readonly overture?: (
    random: Random,
    client: FrameSocket<Duplex>,
    sent: (frame: Buffer) => void,
  ) => Promise<number>;
  /** What a client must send before frames mean anything; what comes of it is then not judged. */
  readonly prelude?: (random: Random) => Buffer;
}

/** How a client ends its connection. */
const endings = ['destroy', 'destroy', 'halfClose', 'wait', 'close', 'stopInFrame'] as const;
type Ending = (typeof endings)[number] | 'spoilLayer';

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
        // The fuzzed daemons have no descriptors to send: whatever else they announce is a lie that
        // goes no further.
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
 * Plays one session of a client that follows the grammar only so far. Resolves with the number of
 * frames it sent. What the proxy does wrong is told to `condemn`.
 */
export async function playClient(
  random: Random,
  entrance: FuzzEntrance,
  driver: string,
  condemn: (why: string) => void,
): Promise<number> {
  const passage = await entrance.connect(random);
  const client = new FrameSocket(passage.stream);
  const ledger = new Ledger(condemn);
  const parts = { random, client, passage, entrance, driver, ledger, condemn };
  const session = new ClientSession(parts);
  client.consume = (frame) => {
    ledger.received(frame);
    return !isLoginReply(frame);
  };
  client.resume();
  try {
    return await session.play();
  } finally {
    client.destroy();
  }
}

/** Those that an overture waits for. */
const isLoginReply = ({ procedure: called }: ReceivedFrame): boolean =>
  called >= procedure.authList && called <= procedure.authPolkit;

interface SessionParts {
  readonly random: Random;
  readonly client: FrameSocket<Duplex>;
  readonly passage: Passage;
  readonly entrance: FuzzEntrance;
  readonly driver: string;
  readonly ledger: Ledger;
  readonly condemn: (why: string) => void;
}

class ClientSession {
  private isSpoilt = false;

  constructor(private readonly parts: SessionParts) {
    parts.client.socket.on('error', (error) => this.broke(error));
  }

  async play(): Promise<number> {
    const { random, client, entrance, passage, ledger } = this.parts;
    const overture = await entrance.overture?.(random, client, (frame) => ledger.sent(frame));
    const reads = random.chance(0.9);
    if (!reads) client.pause();
    const frames = this.frames();
    const isEnded = random.chance(0.15);
    const spoils = passage.spoil !== undefined && random.chance(0.5);
    const ending: Ending = spoils ? 'spoilLayer' : random.pick(endings);
    const tail = isEnded ? [wrongBeginning(random)] : [];
    if (ending === 'stopInFrame' || (spoils && random.chance(0.5))) {
      tail.push(this.beginningOfFrame());
    }
    const prelude = entrance.prelude?.(random);
    await this.send(Buffer.concat([...(prelude ? [prelude] : []), ...frames, ...tail]));
    await this.end(ending, reads && isEnded && prelude === undefined);
    return (overture ?? 0) + frames.length + tail.length;
  }

  private frames(): Buffer[] {
    const { random, ledger } = this.parts;
    const { driver } = this;
    const opening = { name: `${driver}:///system`, flags: 0 };
    const open = frameOf(
      { procedure: procedure.connectOpen, serial: 1 },
      encodeOpenArguments(opening),
    );
    const count = random.below(random.pick([3, 10, 40]));
    const frames = Array.from({ length: count }, () => clientFrame(random, driver));
    const all = random.chance(0.75) ? [open, ...frames] : frames;
    for (const frame of all) ledger.sent(frame);
    return all;
  }

  private get driver(): string {
    const { entrance, driver } = this.parts;
    return entrance.strangers ? strangerMark : driver;
  }

  private beginningOfFrame(): Buffer {
    const { random, ledger } = this.parts;
    const frame = clientFrame(random, this.driver);
    if (random.chance(0.3)) {
      const longest = random.pick([maxFrameLengthBeforeLogin, maxFrameLength, 300_000]);
      frame.writeUInt32BE(longest, 0);
      ledger.sent(frame);
      return frame;
    }
    // A call that is passed on as it arrives is answered as soon as its header tells that it cannot
    // be.
    if (frame.length > collectLimit) ledger.sent(frame);
    // In every field of the header, too.
    const most = random.chance(0.5) ? Math.min(frame.length, headerLength) : frame.length;
    return frame.subarray(0, random.below(most));
  }

  private async send(bytes: Buffer): Promise<void> {
    const { random, client } = this.parts;
    for (const piece of random.pieces(bytes, random.pick([1, 2, 8, 60]))) {
      if (client.ended || client.socket.destroyed) return;
      client.socket.write(piece);
      if (random.chance(0.5)) await nextTurn();
    }
  }

  private async end(ending: Ending, mustEnd: boolean): Promise<void> {
    const { client, ledger } = this.parts;
    switch (ending) {
      case 'destroy':
        return;
      case 'halfClose':
        if (client.ended) return;
        client.resume();
        client.socket.end();
        await this.expectEnd('the proxy does not close after a client has closed its side');
        return;
      case 'spoilLayer':
        client.resume();
        this.spoil();
        await this.expectEnd('a broken layer does not end a client');
        return;
      case 'close':
        client.send(frameOf({ procedure: procedure.connectClose, serial: 999 }));
        ledger.sent(frameOf({ procedure: procedure.connectClose, serial: 999 }));
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

  private spoil(): void {
    const { client, passage } = this.parts;
    if (client.ended || client.socket.destroyed) return;
    this.isSpoilt = true;
    passage.spoil?.(outcastFrames(strangerMark));
  }

  /** Connections may break, but a layer must be whole as long as its client leaves it so. */
  private broke(error: NodeJS.ErrnoException): void {
    const isLayers = error instanceof LayerError || error.code?.startsWith('ERR_SSL') === true;
    if (isLayers && !this.isSpoilt) this.parts.condemn(`the layer broke: ${String(error)}`);
  }

  private async expectEnd(otherwise: string): Promise<void> {
    const { client, condemn } = this.parts;
    await until(() => client.ended, { what: 'the end', deadlineMs: patience }).catch(() =>
      condemn(otherwise),
    );
  }

  /** Resolves when a PING that goes out has had its turn, or could have had it. */
  private async settled(): Promise<void> {
    const { client } = this.parts;
    const closed = once(client.socket, 'close').catch(() => undefined);
    const data = once(client.socket, 'data').catch(() => undefined);
    await Promise.race([closed, data, nextTurn()]);
  }
}
