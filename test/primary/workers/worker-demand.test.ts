import { expect } from 'chai';
import {
  demandOf,
  type Demand,
  type Occupation,
  type Situation,
} from '../../../lib/primary/workers/worker-demand.js';

/** Workers that are busy to so many percent, with a client each. */
const at = (...percents: number[]): Occupation[] =>
  percents.map((percent) => ({ utilisation: percent / 100, clients: 1 }));
/** Workers that have nothing to do, with so many clients. */
const having = (...counts: number[]): Occupation[] =>
  counts.map((clients) => ({ utilisation: 0, clients }));

const now = 1000;

describe('primary/workers/worker-demand', () => {
  const table: [what: string, its: Partial<Situation>, demand: Demand][] = [
    ['adds one to a busy one', { ready: at(61) }, { wanted: 2, quietSince: null }],
    ['adds none to one at the limit', { ready: at(60) }, { wanted: 1, quietSince: null }],
    ['adds none beyond the most', { ready: at(99, 99, 99) }, { wanted: 3, quietSince: null }],
    ['adds one where all are busy', { ready: at(70, 80) }, { wanted: 3, quietSince: null }],
    ['adds none where another is quiet', { ready: at(100, 5) }, { wanted: 2, quietSince: null }],
    [
      'adds none while one is to come',
      { ready: at(99), wanted: 2 },
      { wanted: 2, quietSince: null },
    ],
    ['adds none while none is ready', { ready: [], wanted: 1 }, { wanted: 1, quietSince: null }],
    ['adds one for many clients', { ready: having(17) }, { wanted: 2, quietSince: null }],
    ['adds none for fewer', { ready: having(16) }, { wanted: 1, quietSince: null }],
    ['adds one for more clients still', { ready: having(30, 3) }, { wanted: 3, quietSince: null }],
    ['begins to wait when it is quiet', { ready: at(20, 9) }, { wanted: 2, quietSince: now }],
    ['waits on', { ready: at(0, 0), quietSince: now - 59 }, { wanted: 2, quietSince: now - 59 }],
    [
      'takes one when it has waited',
      { ready: at(0, 0), quietSince: now - 60 },
      { wanted: 1, quietSince: null },
    ],
    [
      'takes no more than one',
      { ready: at(0, 0, 0), quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    ['takes none of the fewest', { ready: at(0), quietSince: 0 }, { wanted: 1, quietSince: null }],
    [
      'takes none that the other could not carry',
      { ready: at(20, 11), quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    [
      'takes one of three where two can carry it',
      { ready: at(20, 20, 19), quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    [
      'takes none of many clients',
      { ready: having(5, 4), quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    [
      'takes one of few clients',
      { ready: having(4, 4), quietSince: 0 },
      { wanted: 1, quietSince: null },
    ],
    [
      'takes none while another drains',
      { ready: at(0, 0), isDraining: true, quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    [
      'adds one while another drains',
      { ready: at(90), isDraining: true },
      { wanted: 2, quietSince: null },
    ],
    [
      'takes none while one is to come',
      { ready: at(0), wanted: 2, quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
    [
      'leaves as many as there are to be',
      { ready: at(0, 0), bounds: { minWorkers: 2, maxWorkers: 2 }, quietSince: 0 },
      { wanted: 2, quietSince: null },
    ],
  ];
  for (const [what, its, demand] of table) {
    it(what, () => {
      const situation: Situation = {
        ready: [],
        wanted: its.ready?.length ?? 0,
        bounds: { minWorkers: 1, maxWorkers: 3 },
        isDraining: false,
        quietSince: null,
        now,
        patience: 60,
        ...its,
      };
      expect(demandOf(situation)).to.deep.equal(demand);
    });
  }

  it('does not take away what the same load has added', () => {
    for (const count of [1, 2, 3, 8]) {
      const bounds = { minWorkers: 1, maxWorkers: 16 };
      const calm = { bounds, isDraining: false, quietSince: null, now, patience: 60 };
      const busy = at(...new Array<number>(count).fill(61));
      expect(demandOf({ ...calm, ready: busy, wanted: count }).wanted).to.equal(count + 1);
      const spread = at(...new Array<number>(count + 1).fill((61 * count) / (count + 1)));
      expect(demandOf({ ...calm, ready: spread, wanted: count + 1 })).to.deep.equal({
        wanted: count + 1,
        quietSince: null,
      });
    }
  });
});
