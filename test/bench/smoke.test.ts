import { expect } from 'chai';
import { Bench } from './bench.js';
import { direct, ours } from './competitors.js';
import { plainRows, playPlain } from './load-rows.js';
import { buildPrograms, programsLacking } from './programs.js';
import { medianOf } from './results.js';

const lacking = programsLacking();

describe(`the benchmark${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let bench: Bench | undefined;

  before(async function () {
    if (lacking !== undefined) this.skip();
    const options = { seconds: 0.3, repeats: 1, streamBytes: 8 * 1024 * 1024 };
    bench = await Bench.open(buildPrograms(), [direct, ours(1)], options);
  });
  after(async () => {
    await bench?.close();
  });

  it('measures calls, opens and streams of a daemon alone and through the proxy', async () => {
    const names = ['4x4', 'reply-64Ki', 'opens-16', 'stream-download', 'stream-upload'];
    await playPlain(
      bench!,
      plainRows.filter(({ name }) => names.includes(name)),
    );
    const { rows } = bench!.results;
    expect(rows.map(({ name }) => name)).to.deep.equal(names);
    for (const row of rows) {
      expect(Object.keys(row.competitors)).to.deep.equal(['direct', 'virtproxyd, 1 worker']);
      for (const competitor of Object.keys(row.competitors)) {
        expect(medianOf(row, competitor, 'rate'), `${row.name}, ${competitor}`).to.be.above(0);
      }
      expect(medianOf(row, 'direct', 'cpu')).to.equal(null);
      expect(medianOf(row, 'virtproxyd, 1 worker', 'cpu')).to.be.above(0);
    }
  });
});
