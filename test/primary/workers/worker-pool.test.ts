import { expect } from 'chai';
import type { ClientIntroduction, WorkerSetup } from '../../../lib/control/messages.js';
import { WorkerPool, WorkerStartError } from '../../../lib/primary/workers/worker-pool.js';
import type { WorkerState } from '../../../lib/primary/workers/worker-process.js';
import { until } from '../../peers/waiting.js';
import { recordedLog } from '../recorded-log.js';
import { FakeForks } from './fake-forks.js';

describe('primary/workers/worker-pool', () => {
  let forks: FakeForks;
  let pool: WorkerPool;
  let lines: string[];
  let lost: number[];
  /** Asks for `least` to `most` workers. */
  const setupFor = (least: number, most = least): WorkerSetup => {
    const cluster = { drain_timeout: 7, min_workers: least, workers: most };
    return { configuration: { cluster }, user: null } as unknown as WorkerSetup;
  };

  beforeEach(() => {
    forks = new FakeForks();
    const recorded = recordedLog();
    lines = recorded.lines;
    lost = [];
    pool = new WorkerPool(
      forks,
      {
        onWorkerReady: () => undefined,
        onWorkerNews: () => undefined,
        onWorkerLost: ({ pid }) => lost.push(pid),
      },
      recorded.log,
    );
  });
  afterEach(() => pool.killAll());

  const states = (): Record<number, WorkerState> =>
    Object.fromEntries([...pool.all].map(({ pid, state }) => [pid, state]));
  const become = (expected: Record<number, WorkerState>): Promise<unknown> =>
    until(() => JSON.stringify(states()) === JSON.stringify(expected), {
      what: `workers to be ${JSON.stringify(expected)}`,
    });
  const start = async (count: number, most = count): Promise<void> => {
    await pool.start(setupFor(count, most));
    await until(() => pool.live.filter(({ state }) => state === 'ready').length === count, {
      what: 'all workers to be ready',
    });
  };
  // Any open descriptor can be passed.
  const hand = (id: number): number | undefined =>
    pool.hand({ id } as ClientIntroduction, { fd: 2, close: () => undefined })?.pid;

  it('starts as many workers as it is asked for', async () => {
    await start(3);
    expect(states()).to.deep.equal({ 1: 'ready', 2: 'ready', 3: 'ready' });
    expect(forks.processes[0]?.received[0]).to.include({ kind: 'configure' });
  });

  it('gives a start up when workers end again and again before they are ready', async () => {
    forks.areObedient = false;
    const outcome = pool.start(setupFor(2)).catch((error: unknown) => error);
    await until(() => forks.processes[1]?.received.length === 1, { what: 'both to be configured' });
    forks.processes[0]?.die();
    forks.processes[1]?.die();
    await until(() => forks.processes[2]?.received.length === 1, { what: 'another' });
    forks.processes[2]?.die();
    expect(await outcome).to.be.instanceOf(WorkerStartError);
    expect(pool.restarts.crash).to.equal(3);
  });

  it('hands a client to the worker with the fewest, and to none that is full', async () => {
    await start(2);
    expect([hand(1), hand(2)]).to.deep.equal([1, 2]);
    forks.processes[0]?.say({ kind: 'taken', id: 1 });
    const [one, other] = [...pool.all];
    await until(() => one!.isLessBusyThan(other!), { what: 'the first to take its client' });
    expect(hand(3)).to.equal(1);
    for (const process of forks.processes) process.say({ kind: 'descriptors', areScarce: true });
    await until(() => [...pool.all].every(({ isFull }) => isFull), { what: 'both to be full' });
    expect(hand(4)).to.equal(undefined);
  });

  it('replaces a worker that crashes at once, and tells of its end', async () => {
    await start(2);
    forks.processes[0]?.die('SIGSEGV');
    await become({ 2: 'ready', 3: 'ready' });
    expect(lost).to.deep.equal([1]);
    expect(pool.restarts).to.include({ crash: 1, hang: 0 });
    expect([...pool.all].map(({ slot }) => slot)).to.deep.equal([1, 0]);
    expect(lines).to.include('error: worker 1 died: it is replaced now');
  });

  it('replaces one that it retires as soon as that drains, and counts why', async () => {
    await start(1);
    pool.retire([...pool.all][0]!, 'memory');
    await become({ 1: 'draining', 2: 'ready' });
    expect(forks.processes[0]?.received.at(-1)).to.deep.equal({
      kind: 'drain',
      seconds: 7,
      clients: 0,
    });
    expect(pool.restarts.memory).to.equal(1);
    expect(pool.isFullOfDraining).to.be.true;
    expect(hand(1)).to.equal(2);
  });

  it('lets the workers before drain once a new generation is in force', async () => {
    await start(2);
    const first = await pool.prepare(setupFor(2));
    expect(states()).to.deep.equal({ 1: 'ready', 2: 'ready', 3: 'ready' });
    expect([first.pid, pool.currentGeneration, hand(1)]).to.deep.equal([3, 1, 1]);
    pool.renew(first, setupFor(2));
    expect(pool.currentGeneration).to.equal(2);
    await until(() => pool.live.every(({ state }) => state === 'ready') && pool.live.length === 2, {
      what: 'the new generation',
    });
    expect(states()).to.include({ 1: 'draining', 2: 'draining' });
    expect([pool.drainingGenerations, hand(2)]).to.deep.equal([1, 3]);
  });

  it('stays as it is when the first worker of a new generation ends before it is ready', async () => {
    await start(1);
    forks.areObedient = false;
    const outcome = pool.prepare(setupFor(1)).catch((error: unknown) => error);
    await until(() => forks.processes[1]?.received.length === 1, { what: 'the new one' });
    forks.processes[1]?.die();
    expect(await outcome).to.be.instanceOf(WorkerStartError);
    expect(pool.currentGeneration).to.equal(1);
    expect(pool.restarts.crash).to.equal(0);
    expect(states()).to.include({ 1: 'ready' });
  });

  it('gives a new generation workers of its user, and the old one those of its own meanwhile', async () => {
    await start(1);
    const user = { uid: 1, gid: 2 };
    const changed = { ...setupFor(2), user };
    const first = await pool.prepare(changed);
    forks.processes[0]?.die();
    await become({ 2: 'ready', 3: 'ready' });
    forks.fork(null);
    await become({ 2: 'ready', 3: 'ready', 4: 'spare' });
    pool.renew(first, changed);
    await become({ 2: 'ready', 3: 'draining', 5: 'ready' });
    expect(forks.processes.map((each) => each.user)).to.deep.equal([null, user, null, null, user]);
  });

  it('has more or fewer workers when its bounds change', async () => {
    await start(2);
    pool.resize({ minWorkers: 3, maxWorkers: 4 });
    await become({ 1: 'ready', 2: 'ready', 3: 'ready' });
    pool.resize({ minWorkers: 1, maxWorkers: 1 });
    expect(pool.live).to.have.lengthOf(1);
    expect([pool.wanted, pool.bounds]).to.deep.equal([1, { minWorkers: 1, maxWorkers: 1 }]);
  });

  it('has as many as are wanted; those that are too many go when their clients have', async () => {
    await start(1, 3);
    expect([pool.wanted, pool.bounds]).to.deep.equal([1, { minWorkers: 1, maxWorkers: 3 }]);
    hand(1);
    pool.want(3);
    await become({ 1: 'ready', 2: 'ready', 3: 'ready' });
    expect([hand(2), hand(3)]).to.deep.equal([2, 3]);
    pool.want(2);
    expect([pool.ready.length, pool.isDraining]).to.deep.equal([2, true]);
    await until(() => forks.processes[0]?.received.at(-1)?.kind === 'drain', { what: 'its order' });
    expect(forks.processes[0]?.received.at(-1)).to.deep.equal({
      kind: 'drain',
      seconds: 0,
      clients: 1,
    });
    expect(forks.processes).to.have.lengthOf(3);
  });

  it('knows how busy workers are', async () => {
    await start(1);
    const [only] = [...pool.all];
    expect(only?.utilisation).to.equal(0);
    forks.processes[0]?.say({ kind: 'alive', utilisation: 0.75 });
    await until(() => only?.utilisation === 0.75, { what: 'its answer' });
  });

  it('begins a new generation with as many as there were, within the new bounds', async () => {
    await start(1, 4);
    pool.want(3);
    await become({ 1: 'ready', 2: 'ready', 3: 'ready' });
    const setup = setupFor(1, 2);
    pool.renew(await pool.prepare(setup), setup);
    await until(() => pool.ready.length === 2, { what: 'two of the new generation' });
    expect([pool.wanted, pool.live.length]).to.deep.equal([2, 2]);
  });

  it('drains all without successors, and resolves when none is left, though it is stopped meanwhile', async () => {
    await start(2);
    const drained = pool.drainAll();
    expect(states()).to.deep.equal({ 1: 'draining', 2: 'draining' });
    const stopped = pool.stop(0);
    for (const process of forks.processes) process.die();
    await Promise.all([drained, stopped]);
    expect(states()).to.deep.equal({});
    expect(forks.processes).to.have.lengthOf(2);
  });

  it('prepares no generation once it stops', async () => {
    await start(1);
    void pool.stop(0);
    expect(await pool.prepare(setupFor(1)).catch((error: unknown) => error)).to.be.instanceOf(
      WorkerStartError,
    );
    pool.killAll();
  });
});
