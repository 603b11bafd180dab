import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { procedure } from '../../lib/rpc/session-messages.js';
import type { RawClient } from '../peers/raw-client.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { Misbehaviour, type Moment } from './misbehaviour.js';
import { lossesOf, Service } from './service.js';

/** Milliseconds for which workers that always crash are watched. */
const watched = 30_000;

/** Workers that may be forked in that time. */
const mostForks = 10;

/** These take their time, so they run side by side, each on a service of its own. */
describe('a fault that lasts:', function () {
  this.timeout(90_000);
  const running: Record<string, () => Promise<void>> = {
    'workers that crash as soon as they are loaded: few forks, the others serve': () =>
      alwaysCrashing('load'),
    'workers that crash when they are to serve: few forks, the others serve': () =>
      alwaysCrashing('start'),
    'a worker that hangs: others take its new clients, and then its place': () => hanging(),
    'a memory limit below what every worker needs: no more workers than twice as many': () =>
      alwaysTooLarge(),
  };
  let outcomes: Map<string, Promise<void>>;

  before(() => {
    outcomes = new Map(Object.entries(running).map(([name, run]) => [name, run()]));
    for (const outcome of outcomes.values()) outcome.catch(() => undefined);
  });

  for (const name of Object.keys(running)) it(name, () => outcomes.get(name));

  after(() => Promise.allSettled(outcomes.values()));

  /** Runs a test on a service that it alone uses. */
  async function withService(
    cluster: string,
    test: (service: Service, misbehaviour: Misbehaviour) => Promise<void>,
  ): Promise<void> {
    const misbehaviour = new Misbehaviour();
    const service = await Service.start({ cluster, env: misbehaviour.env() });
    try {
      await service.readyWorkers(2);
      await test(service, misbehaviour);
    } finally {
      await service.end({ alone: false });
      misbehaviour.end();
    }
  }

  const alwaysCrashing = (moment: Moment): Promise<void> =>
    withService('', async (service, misbehaviour) => {
      const [victim] = await service.readyWorkers(2);
      const stress = await service.stress();
      misbehaviour.fail(moment, true);
      const before = misbehaviour.forks().length;
      const start = performance.now();
      process.kill(victim!, 'SIGKILL');
      await until(() => performance.now() - start > watched, {
        what: 'the time to pass',
        deadlineMs: 2 * watched,
      });
      const forks = misbehaviour.forks().length - before;
      expect(forks).to.be.within(3, mostForks);
      // Every death is told of, with its reason; the last fork may still live.
      expect(service.logged(/: error : daemon.pool : worker \d+ died/).length).to.be.within(
        forks,
        forks + 1,
      );
      expect(service.logged(/told to crash/)).to.not.be.empty;
      await stress.flows();
      const { losses, ...report } = await stress.stop();
      const others = losses.filter(({ worker, since }) => worker !== victim && since > start);
      expect(lossesOf({ ...report, losses: others })).to.deep.equal([]);
      misbehaviour.fail(moment, false);
    });

  const hanging = (): Promise<void> =>
    withService('', async (service, misbehaviour) => {
      const [victim] = await service.readyWorkers(2);
      misbehaviour.order(victim!, 'hang');
      await until(() => misbehaviour.obeys(victim!), { what: 'the worker to hang' });
      const start = performance.now();
      // Longer than a busy machine takes, shorter than it takes until the worker is killed.
      const limit = 4000;
      // At most one of them is given to it before that is known.
      const slow: Promise<unknown>[] = [];
      for (let each = 0; each < 10; each++) {
        const before = performance.now();
        const client = await service.entrances[0]!.connect();
        const reply = client.replyTo(client.begin(procedure.authList), 40_000);
        const isQuick = await Promise.race([
          reply.then(() => true),
          until(() => performance.now() - before > limit, {
            what: 'a while',
            deadlineMs: 2 * limit,
          }).then(() => false),
        ]);
        if (!isQuick) slow.push(reply);
        void reply.finally(() => client.destroy());
      }
      expect(slow.length).to.be.at.most(1);
      await service.says(/worker \d+ has not answered for \d+ s: killing it/, 1, 40_000);
      expect(performance.now() - start).to.be.below(25_000);
      await Promise.all(slow);
      await service.readyWorkers(2);
      expect(service.processes()).to.have.length(3);
    });

  const alwaysTooLarge = (): Promise<void> =>
    withService('max_worker_memory = 100M\n', async (service, misbehaviour) => {
      const staying: RawClient[] = [];
      for (let generation = 1; generation <= 2; generation++) {
        const workers = (await service.readyWorkers(2 * generation)).slice(-2);
        // New clients go where the fewest are: both have some.
        for (let each = 0; each < 4; each++) staying.push(await service.proxy.open());
        for (const worker of workers) misbehaviour.order(worker, 'grow');
        if (generation === 1) await service.says(/it drains and is replaced/, 2);
      }
      await service.says(/but those replaced before still serve clients/, 2);
      expect(service.processes()).to.have.length(1 + 2 * 2);
      for (const client of staying) {
        expect((await client.call(stressCall.hostname)).status).to.equal(status.ok);
        client.destroy();
      }
      // Now that the first two are gone, there is room for these.
      await service.says(/it drains and is replaced/, 4);
    });
});
