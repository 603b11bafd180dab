import { Duplex } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { ControlChannel } from '../../lib/control/channel.js';
import { until } from '../peers/waiting.js';

interface Numbered {
  readonly number: number;
  readonly text?: string;
}

/** The pipe's other end: what each write brought. */
class Pipe extends Duplex {
  readonly writes: string[] = [];
  /** Takes nothing while it is set. */
  isStuck = false;

  override _read(): void {
    // `push` brings what there is.
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: () => void): void {
    this.writes.push(chunk.toString('utf8'));
    if (!this.isStuck) done();
  }
}

function channelOver(pipe: Pipe, received: Numbered[] = []): ControlChannel<Numbered, Numbered> {
  return new ControlChannel<Numbered, Numbered>(
    pipe,
    (message) => received.push(message),
    () => undefined,
  );
}

const lines = (...numbers: number[]): string =>
  numbers.map((number) => `{"number":${number}}\n`).join('');

describe('ControlChannel', () => {
  it('sends all messages of a turn in one write, in order', async () => {
    const pipe = new Pipe();
    const channel = channelOver(pipe);
    for (const number of [1, 2, 3]) channel.send({ number });
    expect(pipe.writes).to.deep.equal([]);
    await nextTurn();
    channel.send({ number: 4 });
    await nextTurn();
    expect(pipe.writes).to.deep.equal([lines(1, 2, 3), lines(4)]);
  });

  it('counts bytes that wait, in the turn and with the other end', async () => {
    const pipe = new Pipe();
    pipe.isStuck = true;
    const channel = channelOver(pipe);
    channel.send({ number: 1, text: 'ä' });
    const { length } = Buffer.from('{"number":1,"text":"ä"}\n');
    expect(channel.queuedBytes).to.equal(length);
    await nextTurn();
    expect(channel.queuedBytes).to.equal(length);
    channel.send({ number: 2 });
    expect(channel.queuedBytes).to.equal(length + lines(2).length);
  });

  it('flushes what waits before it calls back', async () => {
    const pipe = new Pipe();
    const channel = channelOver(pipe);
    channel.send({ number: 1 });
    channel.send({ number: 2 });
    await new Promise<void>((done) => channel.flush(done));
    expect(pipe.writes.join('')).to.equal(lines(1, 2));
  });

  it('drops messages to an end that is gone', async () => {
    const pipe = new Pipe();
    const channel = channelOver(pipe);
    channel.send({ number: 1 });
    channel.close();
    channel.send({ number: 2 });
    channel.send({ number: 3 });
    await new Promise<void>((done) => channel.flush(done));
    expect(pipe.writes).to.deep.equal([]);
    expect(channel.queuedBytes).to.equal(0);
  });

  it('cuts messages that arrive byte by byte', async () => {
    const pipe = new Pipe();
    const received: Numbered[] = [];
    channelOver(pipe, received);
    for (const byte of Buffer.from(lines(1, 2))) pipe.push(Buffer.of(byte));
    await until(() => received.length === 2, { what: 'both messages' });
    expect(received).to.deep.equal([{ number: 1 }, { number: 2 }]);
  });

  for (const line of ['{"number":', 'null', '7', '"text"']) {
    it(`ends with what is no message: ${line}`, async () => {
      const pipe = new Pipe();
      const received: Numbered[] = [];
      channelOver(pipe, received);
      pipe.push(`${lines(1)}${line}\n${lines(2)}`);
      await until(() => pipe.destroyed, { what: 'the channel to be closed' });
      expect(received).to.deep.equal([{ number: 1 }]);
    });
  }
});
