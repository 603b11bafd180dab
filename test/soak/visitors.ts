import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  headerLength,
  messageType,
  procedureOf,
  serialOf,
  status,
  typeOf,
} from '../../lib/rpc/frame.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import type { ClientOptions } from '../native/sasl-client.js';
import { frameOf } from '../peers/frame-socket.js';
import { RawClient } from '../peers/raw-client.js';
import { beginTls, tcpSocket, type TlsClientOptions } from '../peers/remote-client.js';
import { logIn } from '../peers/sasl-stream.js';
import type { Entrance } from '../peers/stress.js';
import { echoOf, streamBytes, stressCall } from '../peers/stress-daemon.js';

/** Milliseconds that an answer may take on a busy machine. */
const patience = 20_000;

/** What the echo calls say whose they are; the daemon keeps one note for each number. */
const visitorNumber = 1;

const opening = encodeOpenArguments({ name: 'qemu:///system', flags: 0 });

/**
 * What is wrong whatever is done to the service: no answer, not even an error, while the connection
 * goes on, or another's.
 */
export class WrongAnswer extends Error {}

/** All that one client sends, of every kind of frame. */
class Script {
  readonly frames: Buffer[] = [];
  private serial = 0;

  constructor() {
    this.call(procedure.connectOpen, opening);
    for (let count = randomInt(4); count > 0; count--) this.echo(randomInt(600));
    if (randomInt(20) === 0) this.echo(300_000);
    if (randomInt(4) === 0) this.call(stressCall.registerEvents);
    if (randomInt(4) === 0) this.call(stressCall.download, encodeInt(50_000));
    if (randomInt(4) === 0) this.upload();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.frames);
  }

  /** The frames that are to be answered, by serial number. */
  calls(): Map<number, Buffer> {
    const calls = this.frames.filter((frame) => typeOf(frame, 0) === messageType.call);
    return new Map(calls.map((frame) => [serialOf(frame, 0), frame]));
  }

  private call(number: number, payload?: Buffer): number {
    this.frames.push(frameOf({ procedure: number, serial: ++this.serial }, payload));
    return this.serial;
  }

  private echo(size: number): void {
    this.call(stressCall.echo, Buffer.concat([encodeInt(visitorNumber), randomBytes(size)]));
  }

  private upload(): void {
    const header = { procedure: stressCall.upload, type: messageType.stream };
    const serial = this.call(stressCall.upload);
    const data = streamBytes(0, 20_000);
    this.frames.push(frameOf({ ...header, serial, status: status.continue }, data));
    this.frames.push(frameOf({ ...header, serial }));
  }
}

/** Comes, does its work, and leaves in good order. Rejects when an answer is missing or wrong. */
export async function visit(entrance: Entrance): Promise<void> {
  const client = await entrance.connect();
  try {
    const script = new Script();
    const sent = script.calls();
    const missing = new Map(sent);
    const answered = new Promise<void>((resolve, reject) => {
      client.consume = ({ type, procedure: number, serial, status: state, payload }) => {
        if (type !== messageType.reply) return true;
        if (state !== status.ok) reject(new Error(`call ${number} failed`));
        const asked = sent.get(serial);
        if (
          number === stressCall.echo &&
          asked &&
          !payload.equals(echoOf(asked.subarray(headerLength)))
        ) {
          reject(new WrongAnswer('a reply has another content'));
        }
        missing.delete(serial);
        if (missing.size === 0) resolve();
        return true;
      };
      void client.end.then(() => reject(new Error('the connection ended')));
      setTimeout(() => {
        const calls = [...missing].map(
          ([serial, call]) => `${procedureOf(call, 0)} (serial ${serial})`,
        );
        reject(new WrongAnswer(`no answer to ${calls.join(', ')}`));
      }, patience).unref();
    });
    client.send(script.bytes);
    await answered;
    client.consume = ({ type }) => type !== messageType.reply;
    await client.replyTo(
      client.begin(procedure.connectClose, undefined, { serial: 999 }),
      patience,
    );
    await client.end;
  } finally {
    client.destroy();
  }
}

/** Comes and is cut off at a random byte of what it had to say, or of what it is told. */
export async function visitCutOff(entrance: Entrance): Promise<void> {
  const client = await entrance.connect();
  const script = new Script();
  const whole = script.bytes;
  client.consume = () => true;
  if (randomInt(2) === 0) {
    const cut = randomInt(whole.length + 1);
    const first = randomInt(cut + 1);
    client.send(whole.subarray(0, first));
    if (randomInt(2) === 0) await nextTurn();
    if (cut > first) client.send(whole.subarray(first, cut));
    // What was sent is to arrive before the end does.
    await new Promise<void>((resolve) => client.socket.end(() => resolve()));
  } else {
    client.send(whole);
    const least = headerLength * script.calls().size;
    const cut = randomInt(least + 1);
    while (client.bytesReceived < cut && !client.ended) {
      await Promise.race([once(client.socket, 'data'), client.end]).catch(() => undefined);
    }
  }
  client.destroy();
}

/** Begins a TLS handshake and is cut off within it. */
export async function shakeHandsCutOff(options: TlsClientOptions): Promise<void> {
  const socket = beginTls(options);
  const turns = randomInt(12);
  await once(socket, 'connect').catch(() => undefined);
  for (let turn = 0; turn < turns; turn++) await nextTurn();
  socket.destroy();
}

/** Logs in over plain TCP, opens and leaves; cut off between two steps of the login if `isCut`. */
export async function visitBySasl(
  port: number,
  account: ClientOptions,
  isCut: boolean,
): Promise<void> {
  const stream = await logIn(await tcpSocket(port), account, isCut ? randomInt(3) : Infinity);
  if (stream === null) return;
  const client = new RawClient(stream);
  try {
    const { status: state } = await client.replyTo(
      client.begin(procedure.connectOpen, opening),
      patience,
    );
    if (state !== status.ok) throw new Error('a client that logged in was not served');
    client.begin(procedure.connectClose);
    await client.end;
  } finally {
    client.destroy();
  }
}
