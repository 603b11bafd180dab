import { expect } from 'chai';
import type { PrimaryMessage } from '../../../lib/control/messages.js';
import type { RestartReason } from '../../../lib/control/workers.js';
import type { WorkerPool } from '../../../lib/primary/workers/worker-pool.js';
import type { WorkerProcess, WorkerState } from '../../../lib/primary/workers/worker-process.js';
import { WorkerWatch } from '../../../lib/primary/workers/worker-watch.js';
import { until } from '../../peers/waiting.js';
import { FakeIntervals } from '../fake-intervals.js';
import { recordedLog } from '../recorded-log.js';

/** A worker as the watch sees it. */
interface FakeWorker {
  pid: number;
  state: WorkerState;
  isWorking: boolean;
  /** Milliseconds since it showed life. */
  silence: number;
  readonly received: PrimaryMessage[];
  isKilled: boolean;
}

const mostSilence = 15_000;
const heartbeatInterval = 1000;
const usageInterval = 5000;

describe('primary/workers/worker-watch', () => {
  let workers: WorkerProcess[];
  let retired: [pid: number, reason: RestartReason][];
  let isFullOfDraining: boolean;
  let maxMemory: number;
  let intervals: FakeIntervals;
  let lines: string[];
  let watch: WorkerWatch;

  beforeEach(() => {
    workers = [];
    retired = [];
    isFullOfDraining = false;
    maxMemory = 0;
    intervals = new FakeIntervals();
    const recorded = recordedLog();
    lines = recorded.lines;
    const pool = {
      get all() {
        return new Set(workers);
      },
      get isFullOfDraining() {
        return isFullOfDraining;
      },
      retire: ({ pid }: WorkerProcess, reason: RestartReason) => retired.push([pid, reason]),
    } as unknown as WorkerPool;
    watch = new WorkerWatch(pool, () => maxMemory, recorded.log);
  });
  afterEach(() => {
    watch.stop();
    intervals.restore();
  });

  /** One more worker; without other words one that is ready, lively and this very process. */
  const worker = (its: Partial<FakeWorker> = {}): FakeWorker => {
    const fake: FakeWorker = {
      pid: process.pid,
      state: 'ready',
      isWorking: true,
      silence: 0,
      received: [],
      isKilled: false,
      ...its,
    };
    const methods = {
      send: (message: PrimaryMessage) => fake.received.push(message),
      killHung: () => (fake.isKilled = true),
    };
    workers.push(Object.assign(fake, methods) as unknown as WorkerProcess);
    return fake;
  };

  describe('at each heartbeat', () => {
    const heartbeat = [{ kind: 'heartbeat' }];
    const table: [what: string, its: Partial<FakeWorker>, received: object[], isKilled: boolean][] =
      [
        ['asks a worker for a sign of life', {}, heartbeat, false],
        ['asks one that drains', { state: 'draining' }, heartbeat, false],
        [
          'asks one that has been silent as long as it may',
          { silence: mostSilence },
          heartbeat,
          false,
        ],
        ['kills one that has been silent for longer', { silence: mostSilence + 1 }, [], true],
        [
          'leaves one alone that has nothing to do',
          { state: 'spare', isWorking: false, silence: mostSilence + 1 },
          [],
          false,
        ],
      ];
    for (const [what, its, received, isKilled] of table) {
      it(what, () => {
        const fake = worker(its);
        intervals.pass(heartbeatInterval - 1);
        expect([fake.received, fake.isKilled]).to.deep.equal([[], false]);
        intervals.pass(1);
        expect([fake.received, fake.isKilled]).to.deep.equal([received, isKilled]);
      });
    }

    it('says in the log whom it kills, and after how long', () => {
      worker({ pid: 17, silence: 16_400 });
      intervals.pass(heartbeatInterval);
      expect(lines).to.deep.equal(['error: worker 17 has not answered for 16 s: killing it']);
    });

    it('does nothing any more once it is stopped', () => {
      const fake = worker();
      watch.stop();
      intervals.pass(10 * heartbeatInterval);
      expect(fake.received).to.deep.equal([]);
    });
  });

  describe('of a worker’s memory', () => {
    /** Measures once, and waits until `text` is in the log. */
    const measure = async (text: string, times = 1): Promise<void> => {
      intervals.pass(usageInterval);
      await until(() => lines.filter((line) => line.includes(text)).length === times, {
        what: `“${text}” in the log`,
      });
    };
    const gone = { pid: 2 ** 30, state: 'gone' } as const;

    it('retires one that has more than max_worker_memory', async () => {
      worker();
      maxMemory = 1;
      await measure(`worker ${process.pid} has `);
      expect(lines[0]).to.match(
        /^warning: .* bytes, more than max_worker_memory \(1\): it drains and is replaced$/,
      );
      expect(retired).to.deep.equal([[process.pid, 'memory']]);
    });

    it('retires none while as many drain as serve, and says so once', async () => {
      worker();
      maxMemory = 1;
      isFullOfDraining = true;
      await measure('those replaced before still serve clients');
      worker(gone);
      await measure(`cannot measure worker ${gone.pid}`);
      expect(lines.filter((line) => line.startsWith('error: '))).to.have.lengthOf(1);
      expect(retired).to.deep.equal([]);
    });

    const spared: [what: string, its: Partial<FakeWorker>, limit: number][] = [
      ['retires none without a limit', {}, 0],
      ['retires none that has less', {}, 2 ** 50],
      ['retires none that drains already', { state: 'draining' }, 1],
    ];
    for (const [what, its, limit] of spared) {
      it(what, async () => {
        worker(its);
        // It is measured later, and fails, which shows that the first has been looked at.
        worker(gone);
        maxMemory = limit;
        await measure(`cannot measure worker ${gone.pid}`);
        await measure(`cannot measure worker ${gone.pid}`, 2);
        expect(retired).to.deep.equal([]);
        expect(lines.filter((line) => !line.startsWith('debug: '))).to.deep.equal([]);
      });
    }
  });

  describe('of a worker worn by SASL logins', () => {
    it('retires it, however many drain', () => {
      isFullOfDraining = true;
      worker({ pid: 17 });
      watch.onWorn(workers[0]!, '512 of 1024 thread keys in use');
      expect(retired).to.deep.equal([[17, 'sasl']]);
      expect(lines[0]).to.include('worker 17 has 512 of 1024 thread keys in use by SASL logins');
    });

    it('does not retire one that drains already', () => {
      worker({ state: 'draining' });
      watch.onWorn(workers[0]!, 'all in use');
      expect(retired).to.deep.equal([]);
    });
  });
});
