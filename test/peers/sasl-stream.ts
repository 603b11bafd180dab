import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { status } from '../../lib/rpc/frame.js';
import { procedure } from '../../lib/rpc/session-messages.js';
import { LayerError } from '../../lib/transport/layered-stream.js';
import { SaslClient, type ClientOptions } from '../native/sasl-client.js';
import { RawClient, readError } from './raw-client.js';
import { encodeSaslStart, encodeSaslStep, readSaslReply } from './sasl-frames.js';

/** The mechanism with a layer that needs no Kerberos realm. */
export const layeredMechanism = 'DIGEST-MD5';

/** The strongest layer, in bits, that it may choose. */
export const strongest = 256;

/** Milliseconds that an answer may take on a busy machine. */
const patience = 20_000;

/**
 * The client's end of a SASL layer on TCP. An error of it is a LayerError when the server broke the
 * layer.
 */
export class SaslStream extends Duplex {
  /** Cuts what goes to the socket in one go. */
  cut: (packets: Buffer) => Buffer[] = (packets) => [packets];

  constructor(
    readonly below: Socket,
    private readonly peer: SaslClient,
  ) {
    super({ allowHalfOpen: false });
    below.on('data', (chunk: Buffer) => this.received(chunk));
    below.on('end', () => this.push(null));
    below.on('error', (error) => this.destroy(error));
    below.on('close', () => this.destroy());
  }

  /** The packets that carry `bytes`; they count as sent in the layer, and are to go out. */
  encode(bytes: Buffer): Buffer {
    // libsasl2 has then freed what it would need.
    if (this.destroyed) return Buffer.alloc(0);
    return this.peer.encode(bytes);
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    for (const piece of this.cut(this.encode(bytes))) this.below.write(piece);
    done();
  }

  override _read(): void {
    this.below.resume();
  }

  override _final(done: () => void): void {
    this.below.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.below.destroy();
    this.peer.dispose();
    done(error);
  }

  private received(chunk: Buffer): void {
    if (this.destroyed) return;
    try {
      const clear = this.peer.decode(chunk);
      if (clear.length > 0 && !this.push(clear)) this.below.pause();
    } catch (cause) {
      this.destroy(new LayerError('the server broke the SASL layer', { cause }));
    }
  }
}

/**
 * Logs in over a TCP connection. Resolves with the layer, or with null when `mostCalls` did not
 * suffice. Rejects when it is turned away, or no answer comes.
 */
export async function logIn(
  socket: Socket,
  account: ClientOptions,
  mostCalls = Infinity,
): Promise<SaslStream | null> {
  const client = new RawClient(socket);
  const peer = new SaslClient({ ...account, maxSsf: strongest });
  let isLoggedIn = false;
  try {
    let callsLeft = mostCalls;
    const ask = async (number: number, payload?: Buffer): Promise<Buffer | null> => {
      if (callsLeft-- === 0) return null;
      const reply = await client.replyTo(client.begin(number, payload), patience);
      if (reply.status !== status.ok) throw new Error(readError(reply).message ?? 'no reason');
      return reply.payload;
    };
    if ((await ask(procedure.authSaslInit)) === null) return null;
    const start = encodeSaslStart(layeredMechanism, peer.start(layeredMechanism));
    let said = await ask(procedure.authSaslStart, start);
    while (said !== null && !isLoggedIn) {
      const { complete, data } = readSaslReply(said);
      const answer = peer.step(data);
      if (complete) isLoggedIn = true;
      else said = await ask(procedure.authSaslStep, encodeSaslStep(answer));
    }
    if (!isLoggedIn) return null;
    // What comes from now on is no frames, but packets.
    socket.removeAllListeners('data');
    return new SaslStream(socket, peer);
  } finally {
    if (!isLoggedIn) {
      client.destroy();
      peer.dispose();
    }
  }
}
