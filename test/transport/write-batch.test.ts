import { expect } from 'chai';
import { setImmediate as turn } from 'node:timers/promises';
import { WriteBatch, type BatchWriter } from '../../lib/transport/write-batch.js';

/** Writers that note what reaches them, all in one list. */
function makeWriters(...names: string[]): { writers: BatchWriter[]; written: string[] } {
  const written: string[] = [];
  const writers = names.map((name) => ({
    writeNow(bytes: Buffer, start: number, end: number): void {
      written.push(`${name}: ${bytes.toString('latin1', start, end)}`);
    },
  }));
  return { writers, written };
}

/** A batch after a turn with so many pieces that those of the next one wait. */
async function busyBatch(): Promise<WriteBatch> {
  const batch = new WriteBatch();
  const nobody: BatchWriter = { writeNow: () => undefined };
  for (let count = 0; count < 5; count++) batch.add(nobody, Buffer.from('x'), 0, 1);
  await turn();
  return batch;
}

describe('WriteBatch', () => {
  it('writes at the end of the turn, in the order in which it was given the pieces', async () => {
    const { writers, written } = makeWriters('one', 'other');
    const [one, other] = writers as [BatchWriter, BatchWriter];
    const batch = await busyBatch();
    batch.add(one, Buffer.from('..first..'), 2, 7);
    batch.add(other, Buffer.from('second'), 0, 6);
    batch.add(one, Buffer.from('third'), 0, 5);
    expect(written).to.deep.equal([]);
    await turn();
    expect(written).to.deep.equal(['one: first', 'other: second', 'one: third']);
  });

  it('makes one write of pieces that follow each other', async () => {
    const { writers, written } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = await busyBatch();
    batch.add(one, Buffer.from('first '), 0, 6);
    batch.add(one, Buffer.from('second'), 0, 6);
    await turn();
    expect(written).to.deep.equal(['one: first second']);
  });

  it('keeps what it was given though the bytes change afterwards', async () => {
    const { writers, written } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = await busyBatch();
    const bytes = Buffer.from('as it was');
    batch.add(one, bytes, 0, bytes.length);
    bytes.fill('x');
    await turn();
    expect(written).to.deep.equal(['one: as it was']);
  });

  it('refuses pieces that had better be written at once, as there are few in a turn', async () => {
    const { writers, written } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = new WriteBatch();
    for (let count = 0; count < 9; count++) {
      expect(batch.add(one, Buffer.from('alone'), 0, 5), `piece ${count}`).to.equal(false);
      await turn();
    }
    expect(written).to.deep.equal([]);
  });

  it('goes back to refusing after a turn with few pieces', async () => {
    const { writers } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = await busyBatch();
    expect(batch.add(one, Buffer.from('x'), 0, 1)).to.equal(true);
    await turn();
    expect(batch.add(one, Buffer.from('x'), 0, 1)).to.equal(false);
  });

  it('refuses a long piece, which is better written at once', async () => {
    const { writers, written } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = await busyBatch();
    expect(batch.add(one, Buffer.alloc(5000), 0, 5000)).to.equal(false);
    await turn();
    expect(written).to.deep.equal([]);
  });

  it('writes before the turn ends when it is full, and begins anew', async () => {
    const { writers, written } = makeWriters('one', 'other');
    const [one, other] = writers as [BatchWriter, BatchWriter];
    const batch = await busyBatch();
    const piece = Buffer.alloc(4096, 'x');
    for (let count = 0; count < 16; count++) batch.add(one, piece, 0, piece.length);
    expect(written).to.have.length(0);
    batch.add(other, Buffer.from('more'), 0, 4);
    expect(written.map((text) => text.length)).to.deep.equal(['one: '.length + 64 * 1024]);
    await turn();
    expect(written[1]).to.equal('other: more');
  });

  it('writes what waits when it is told to, and nothing of it again', async () => {
    const { writers, written } = makeWriters('one');
    const [one] = writers as [BatchWriter];
    const batch = await busyBatch();
    batch.add(one, Buffer.from('now'), 0, 3);
    batch.flush();
    expect(written).to.deep.equal(['one: now']);
    await turn();
    expect(written).to.have.length(1);
  });
});
