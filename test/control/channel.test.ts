import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { ControlChannel } from '../../lib/control/channel.js';
import { TextStream } from './text-stream.js';

interface Numbered {
  readonly number: number;
  readonly text?: string;
}

const lines = (...numbers: number[]): string =>
  numbers.map((number) => `{"number":${number}}\n`).join('');

describe('ControlChannel', () => {
  let stream: TextStream;
  let received: Numbered[];
  let closings: number;
  let channel: ControlChannel<Numbered, Numbered>;

  beforeEach(() => {
    stream = new TextStream();
    received = [];
    closings = 0;
    channel = new ControlChannel<Numbered, Numbered>(
      stream,
      (message) => received.push(message),
      () => closings++,
    );
  });

  it('sends all messages of a turn in one write, in order', async () => {
    for (const number of [1, 2, 3]) channel.send({ number });
    expect(stream.taken).to.deep.equal([]);
    await nextTurn();
    channel.send({ number: 4 });
    await nextTurn();
    expect(stream.taken).to.deep.equal([lines(1, 2, 3), lines(4)]);
  });

  it('counts bytes that wait, in the turn and with the other end', async () => {
    stream.stick();
    channel.send({ number: 1, text: 'ä' });
    const { length } = Buffer.from('{"number":1,"text":"ä"}\n');
    expect(channel.queuedBytes).to.equal(length);
    await nextTurn();
    expect(channel.queuedBytes).to.equal(length);
    channel.send({ number: 2 });
    expect(channel.queuedBytes).to.equal(length + lines(2).length);
  });

  it('flushes what waits before it calls back', () => {
    let flushed = 0;
    stream.stick();
    channel.send({ number: 1 });
    channel.send({ number: 2 });
    channel.flush(() => flushed++);
    expect(flushed).to.equal(0);
    stream.release();
    expect(stream.taken.join('')).to.equal(lines(1, 2));
    expect(flushed).to.equal(1);
    channel.flush(() => flushed++);
    expect(flushed).to.equal(2);
  });

  it('drops messages to an end that is gone', async () => {
    channel.send({ number: 1 });
    channel.close();
    channel.send({ number: 2 });
    channel.send({ number: 3 });
    await new Promise<void>((done) => channel.flush(done));
    expect(stream.taken).to.deep.equal([]);
    expect(channel.queuedBytes).to.equal(0);
    expect(closings).to.equal(0);
  });

  it('has nobody wait for an end that goes', async () => {
    stream.stick();
    channel.send({ number: 1 });
    const flushed = new Promise<void>((done) => channel.flush(done));
    stream.leave();
    await flushed;
    expect(closings).to.equal(1);
  });

  it('cuts messages that arrive byte by byte', () => {
    for (const byte of Buffer.from('{"number":1,"text":"ä"}\n' + lines(2))) {
      stream.arrive(Buffer.of(byte));
    }
    expect(received).to.deep.equal([{ number: 1, text: 'ä' }, { number: 2 }]);
  });

  it('cuts messages that arrive together, and keeps the beginning of the next', () => {
    stream.arrive(`${lines(1, 2)}\n{"numb`);
    expect(received).to.deep.equal([{ number: 1 }, { number: 2 }]);
    stream.arrive('er":3}\n{"number":4');
    stream.arrive('}\n');
    expect(received.slice(2)).to.deep.equal([{ number: 3 }, { number: 4 }]);
  });

  for (const line of ['{"number":', 'null', '7', '"text"']) {
    it(`ends with what is no message: ${line}`, () => {
      stream.arrive(`${lines(1)}${line}\n${lines(2)}`);
      expect(received).to.deep.equal([{ number: 1 }]);
      expect(stream.isDestroyed).to.equal(true);
      expect(closings).to.equal(1);
    });
  }

  it('ends with a line that has no end', () => {
    const piece = Buffer.alloc(1024 * 1024, 'x');
    for (let count = 0; count < 16; count++) stream.arrive(piece);
    expect(closings).to.equal(0);
    stream.arrive('x');
    expect(closings).to.equal(1);
    expect(stream.isDestroyed).to.equal(true);
  });
});
