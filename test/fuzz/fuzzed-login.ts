import type { Duplex } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { messageType } from '../../lib/rpc/frame.js';
import { procedure } from '../../lib/rpc/session-messages.js';
import { SaslClient, type ClientOptions } from '../native/sasl-client.js';
import { frameOf, type FrameSocket } from '../peers/frame-socket.js';
import { encodeSaslStart, encodeSaslStep, readSaslReply } from '../peers/sasl-frames.js';
import { layeredMechanism, strongest } from '../peers/sasl-stream.js';
import { payloadFor, spoilt } from './grammar.js';
import type { Random } from './random.js';

const { authSaslInit, authSaslStart, authSaslStep, authList, authPolkit } = procedure;

const inOrder: readonly number[] = [authSaslInit, authSaslStart, authSaslStep];
const inAnyOrder = [...inOrder, ...inOrder, authList, authPolkit];

/** Milliseconds that a proxy may take on a busy machine for a step. */
const patience = 20_000;

/**
 * A SASL login that goes wrong in any of its steps, or in none: then its client does not know the
 * layer that it is in, and what it says in clear is worth as little.
 */
export class FuzzedLogin {
  private readonly peer: SaslClient;
  /** The step of `inOrder` that would be right now; none when it is too late for any. */
  private step = 0;
  /** What the server said last. */
  private said: Buffer | null = null;

  private constructor(
    private readonly random: Random,
    private readonly client: FrameSocket<Duplex>,
    /** Told of every call before it is sent. */
    private readonly sent: (frame: Buffer) => void,
    account: ClientOptions,
  ) {
    const password = random.chance(0.3) ? 'wrong' : account.password;
    this.peer = new SaslClient({ ...account, password, maxSsf: strongest });
  }

  /**
   * Resolves with the number of frames that were sent, when the client goes on to something else.
   */
  static async play(
    random: Random,
    client: FrameSocket<Duplex>,
    sent: (frame: Buffer) => void,
    account: ClientOptions,
  ): Promise<number> {
    const login = new FuzzedLogin(random, client, sent, account);
    try {
      return await login.play();
    } finally {
      login.peer.dispose();
    }
  }

  private async play(): Promise<number> {
    const { random, client } = this;
    const isInOrder = random.chance(0.6);
    const order = isInOrder
      ? inOrder
      : Array.from({ length: 1 + random.below(6) }, () => random.pick(inAnyOrder));
    for (const [index, number] of order.entries()) {
      const serial = 500 + index;
      const frame = frameOf({ procedure: number, serial }, this.payload(number));
      if (random.chance(0.05)) {
        client.socket.end(frame.subarray(0, random.below(frame.length)));
        return index + 1;
      }
      this.sent(frame);
      for (const piece of random.pieces(frame, 4)) client.socket.write(piece);
      // Else the next step is outstanding together with this one.
      if (random.chance(isInOrder ? 0.95 : 0.6)) await this.answer(serial);
      else await nextTurn();
      if (client.ended) return index + 1;
    }
    return order.length;
  }

  /** What a client with its wits about it would send, or something like it. */
  private payload(number: number): Buffer {
    const { random } = this;
    const right = random.chance(0.1) ? null : this.rightPayload(number);
    if (right === null) return payloadFor(random, number, 'xen');
    return random.chance(0.1) ? spoilt(random, right) : right;
  }

  /**
   * Null when there is none: libsasl2's client must not be asked out of order, nor after it has
   * failed.
   */
  private rightPayload(number: number): Buffer | null {
    if (number !== inOrder[this.step]) return null;
    this.step = inOrder.length;
    try {
      const payload = this.encoded(number);
      this.step = inOrder.indexOf(number) + 1;
      return payload;
    } catch {
      return null;
    }
  }

  private encoded(number: number): Buffer {
    const { peer, said } = this;
    if (number === authSaslStart) {
      return encodeSaslStart(layeredMechanism, peer.start(layeredMechanism));
    }
    return number === authSaslStep ? encodeSaslStep(peer.step(said)) : Buffer.alloc(0);
  }

  private async answer(serial: number): Promise<void> {
    const isAnswer = (frame: { type: number; serial: number }): boolean =>
      frame.type === messageType.reply && frame.serial === serial;
    const reply = await this.client
      .take(isAnswer, `the answer to step ${serial} of a login`, patience)
      .catch((error: unknown) => {
        if (!this.client.ended) throw error;
      });
    if (reply === undefined) return;
    try {
      this.said = readSaslReply(reply.payload).data;
    } catch {
      // An error, or the answer to another question.
      this.said = null;
    }
  }
}
