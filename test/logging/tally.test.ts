import { expect } from 'chai';
import { Tally } from '../../lib/logging/tally.js';
import { until } from '../peers/waiting.js';

describe('a tally of what may happen a million times', () => {
  it('is told at once, and then at most once in an interval, with the number so far', async () => {
    const said: number[] = [];
    const tally = new Tally((count) => said.push(count), 30);
    for (let time = 0; time < 1_000_000; time++) tally.add();
    expect(said).to.deep.equal([1]);
    await until(() => said.length === 2, { what: 'the number' });
    expect(said).to.deep.equal([1, 1_000_000]);
  });

  it('is told no more of what has stopped, and at once when it happens again', async () => {
    const said: number[] = [];
    const other: number[] = [];
    const tally = new Tally((count) => said.push(count), 10);
    tally.add();
    // Begun later, with the same interval twice: by its second word the first tally's interval is
    // over.
    const later = new Tally((count) => other.push(count), 20);
    later.add();
    later.add();
    await until(() => other.length === 2, { what: 'the later one' });
    expect(said).to.deep.equal([1]);
    tally.add();
    expect(said).to.deep.equal([1, 2]);
  });
});
