import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { LineQueue, maxQueued, type Carrier } from '../../lib/logging/line-queue.js';
import { until } from '../peers/waiting.js';

type Done = (error: NodeJS.ErrnoException | null, taken: number) => void;

/** A receiver that takes what the test lets it. */
class StandInCarrier implements Carrier {
  readonly got: string[] = [];
  closed = false;
  /** How many bytes it takes of `bytes`; throws what it fails with. */
  take: (bytes: Buffer) => number = (bytes) => bytes.length;

  constructor(readonly joins: boolean) {}

  send(bytes: Buffer, done: Done): void {
    let taken: number;
    try {
      taken = this.sendNow(bytes);
    } catch (error) {
      done(error as NodeJS.ErrnoException, 0);
      return;
    }
    done(null, taken);
  }

  sendNow(bytes: Buffer): number {
    const taken = this.take(bytes);
    if (taken > 0) this.got.push(bytes.toString('utf8', 0, taken));
    return taken;
  }

  close(): void {
    this.closed = true;
  }

  get text(): string {
    return this.got.join('');
  }
}

const broken = (code: string): (() => never) => {
  return () => {
    throw Object.assign(new Error(`it says ${code}`), { code });
  };
};

describe('queue of lines', () => {
  let carrier: StandInCarrier;
  let reports: string[];
  let queue: LineQueue;
  const put = (...lines: string[]): void => {
    for (const line of lines) queue.push(Buffer.from(`${line}\n`));
  };
  const make = (joins: boolean): void => {
    carrier = new StandInCarrier(joins);
    reports = [];
    queue = new LineQueue(carrier, {
      failing: ({ message }) => reports.push(message),
      recovered: (lost) => {
        reports.push(`${lost} lost`);
        put(`report of ${lost}`);
      },
    });
  };

  beforeEach(() => make(true));

  it('hands over the lines of one turn together, or one by one where each is a datagram', async () => {
    put('a', 'b', 'c');
    expect(carrier.got).to.deep.equal([]);
    await nextTurn();
    expect(carrier.got).to.deep.equal(['a\nb\nc\n']);
    make(false);
    put('a', 'b', 'c');
    await until(() => carrier.got.length === 3, { what: 'three datagrams' });
    expect(carrier.got).to.deep.equal(['a\n', 'b\n', 'c\n']);
  });

  it('goes on within a line that was taken in part', async () => {
    carrier.take = (bytes) => Math.min(bytes.length, 3);
    put('first', 'second', 'third');
    await until(() => carrier.text === 'first\nsecond\nthird\n', { what: 'all of it' });
  });

  it('keeps lines while the receiver takes none', async () => {
    carrier.take = () => 0;
    put('a');
    await nextTurn();
    put('b');
    carrier.take = (bytes) => bytes.length;
    await until(() => carrier.text === 'a\nb\n', { what: 'the lines' });
    expect(reports).to.deep.equal([]);
    expect(queue.drops).to.equal(0);
  });

  it('drops what is beyond its bound, and says how much where it is missing, once', async () => {
    carrier.take = () => 0;
    const line = 'x'.repeat(1023);
    for (let index = 0; index < maxQueued / 1024; index++) put(line);
    put('one too many');
    carrier.take = (bytes) => bytes.length;
    // Not even when there is room again: the gap is to be one.
    put('and another');
    expect(queue.drops).to.equal(2);
    await until(() => carrier.text.endsWith('report of 2\n'), { what: 'the report' });
    put('after');
    await until(() => carrier.text.endsWith('report of 2\nafter\n'), { what: 'what follows' });
    expect(carrier.text.length).to.equal(maxQueued + 'report of 2\nafter\n'.length);
    expect(reports).to.deep.equal(['2 lost']);
    expect(queue.drops).to.equal(2);
  });

  it('tells once of a receiver that fails, and tries it again', async () => {
    carrier.take = broken('ENOSPC');
    put('a');
    await nextTurn();
    put('b');
    expect(reports).to.deep.equal(['it says ENOSPC']);
    carrier.take = (bytes) => bytes.length;
    await until(() => carrier.text === 'a\nb\n', { what: 'the lines' });
    carrier.take = broken('EIO');
    put('c');
    await nextTurn();
    expect(reports).to.deep.equal(['it says ENOSPC', 'it says EIO']);
  });

  it('gives up a line that the receiver will never take', async () => {
    make(false);
    carrier.take = (bytes) => (bytes.length > 15 ? broken('EMSGSIZE')() : bytes.length);
    put('a', 'far too long for it', 'b');
    await until(() => carrier.text === 'a\nb\nreport of 1\n', { what: 'the others' });
    put('c');
    await until(() => carrier.text.endsWith('report of 1\nc\n'), { what: 'the next' });
  });

  it('hands over at once what waits when the process ends, within reason', () => {
    put('a', 'b');
    queue.flush();
    expect(carrier.text).to.equal('a\nb\n');
    carrier.take = () => 0;
    put('c');
    const before = performance.now();
    queue.flush();
    expect(performance.now() - before).to.be.within(400, 2000);
    carrier.take = broken('EPIPE');
    queue.flush();
    queue.close();
    expect(carrier.closed).to.be.true;
  });
});
