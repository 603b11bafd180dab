import { expect } from 'chai';
import { RestartCount } from '../../lib/metrics/restart-count.js';

describe('the count of restarts of a daemon', () => {
  type Told = readonly [slot: number, at: number, path?: string];
  const cases: [what: string, told: Told[], total: number][] = [
    [
      'takes what all workers tell of for one',
      [
        [0, 1000],
        [1, 1003],
        [2, 2900],
      ],
      1,
    ],
    [
      'takes it for one in whichever order the reports come',
      [
        [1, 1900],
        [0, 1000],
      ],
      1,
    ],
    [
      'takes those that one worker tells of for as many',
      [
        [0, 1000],
        [0, 1500],
        [0, 1900],
      ],
      3,
    ],
    [
      'has two shortly after each other told of by all',
      [
        [0, 1000],
        [0, 1800],
        [1, 1001],
        [1, 1801],
      ],
      2,
    ],
    [
      'has two that only one worker was there for both of',
      [
        [0, 1000],
        [1, 1001],
        [1, 5000],
      ],
      2,
    ],
    [
      'takes later ones for others',
      [
        [0, 1000],
        [1, 3001],
      ],
      2,
    ],
    [
      'takes both sockets of a daemon for one',
      [
        [0, 1000, '/sock'],
        [0, 1001, '/sock-ro'],
      ],
      1,
    ],
  ];
  for (const [what, told, total] of cases) {
    it(what, () => {
      const count = new RestartCount();
      for (const [slot, at, path = '/sock'] of told) count.add(slot, { path, at });
      expect(count.total).to.equal(total);
    });
  }
});
