import { expect } from 'chai';
import type { WorkerBounds } from '../../../lib/control/workers.js';
import type { Occupation } from '../../../lib/primary/workers/worker-demand.js';
import type { WorkerPool } from '../../../lib/primary/workers/worker-pool.js';
import { WorkerScaling } from '../../../lib/primary/workers/worker-scaling.js';
import { FakeIntervals } from '../fake-intervals.js';
import { recordedLog } from '../recorded-log.js';

describe('primary/workers/worker-scaling', () => {
  let bounds: WorkerBounds;
  let ready: Occupation[];
  let wanted: number;
  let patience: number;
  let intervals: FakeIntervals;
  let lines: string[];
  let scaling: WorkerScaling;

  beforeEach(() => {
    bounds = { minWorkers: 1, maxWorkers: 2 };
    ready = [{ utilisation: 0.9, clients: 3 }];
    wanted = 1;
    patience = 60;
    intervals = new FakeIntervals();
    const recorded = recordedLog();
    lines = recorded.lines;
    const pool = {
      get bounds() {
        return bounds;
      },
      get ready() {
        return ready;
      },
      get wanted() {
        return wanted;
      },
      isDraining: false,
      want: (count: number) => (wanted = count),
    } as unknown as WorkerPool;
    scaling = new WorkerScaling(pool, () => patience, recorded.log);
  });
  afterEach(() => {
    scaling.stop();
    intervals.restore();
  });

  it('looks each second, and says in the log what it changes', () => {
    intervals.pass(999);
    expect(wanted).to.equal(1);
    intervals.pass(1);
    expect(wanted).to.equal(2);
    intervals.pass(5000);
    expect(lines).to.deep.equal([
      'info: workers: 2 instead of 1, which are 90 % busy with 3 clients',
    ]);
  });

  it('looks at once when it is told to', () => {
    scaling.review();
    expect(wanted).to.equal(2);
  });

  it('changes nothing where there are always as many', () => {
    bounds = { minWorkers: 1, maxWorkers: 1 };
    intervals.pass(5000);
    expect([wanted, lines]).to.deep.equal([1, []]);
  });

  it('lets go of one that was quiet for as long as the configuration in force says', () => {
    [ready, wanted] = [[0, 0].map((utilisation) => ({ utilisation, clients: 1 })), 2];
    intervals.pass(1000);
    expect(wanted).to.equal(2);
    // Real time hardly passes here.
    patience = 0;
    intervals.pass(1000);
    expect(wanted).to.equal(1);
  });

  it('changes nothing any more once it is stopped', () => {
    scaling.stop();
    intervals.pass(5000);
    expect(wanted).to.equal(1);
  });
});
