import { expect } from 'chai';
import { encodeInt } from '../../lib/rpc/session-messages.js';
import type { Loss, StressReport } from '../peers/stress.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { Misbehaviour } from './misbehaviour.js';
import { fairTime, lossesOf, Service, type ServiceOptions } from './service.js';

/** Milliseconds within which those that a dead worker served must know. */
const newsTime = 1000;

/**
 * Leaves what the worker's own clients lost by its death: those it served, and those it was just
 * taking in.
 */
function ownOf(worker: number, diedAt: number): (loss: Loss) => boolean {
  return (loss) => {
    const wasTakingIn = loss.worker === null && loss.since <= diedAt;
    const isIts = loss.worker === worker || wasTakingIn;
    return isIts && loss.kind === 'error' && loss.at >= diedAt && loss.at - diedAt < newsTime;
  };
}

const others = (report: StressReport, isOwn: (loss: Loss) => boolean): string[] =>
  lossesOf({ ...report, losses: report.losses.filter((loss) => !isOwn(loss)) });

describe('a worker that dies under stress', function () {
  this.timeout(60_000);
  let service: Service;
  let misbehaviour: Misbehaviour;

  beforeEach(() => {
    misbehaviour = new Misbehaviour();
  });

  afterEach(async () => {
    await service.end();
    misbehaviour.end();
  });

  async function start(options: ServiceOptions = {}, heap?: number): Promise<void> {
    service = await Service.start({ ...options, env: misbehaviour.env(heap) });
  }

  const deaths: Record<string, { die: (worker: number) => void; says: RegExp; heap?: number }> = {
    'killed with -9': {
      die: (worker) => process.kill(worker, 'SIGKILL'),
      says: /worker \d+ was killed by SIGKILL/,
    },
    'of an exception': {
      die: (worker) => misbehaviour.order(worker, 'throw'),
      says: /error : daemon.pool : worker \d+: Error: told to throw/,
    },
    'of exhausted memory': {
      die: (worker) => misbehaviour.order(worker, 'exhaust'),
      says: /error : daemon.pool : worker \d+: .*heap out of memory/,
      heap: 64,
    },
  };

  for (const [how, { die, says, heap }] of Object.entries(deaths)) {
    it(`${how} costs its own clients alone, and is replaced`, async () => {
      await start({ remote: true }, heap);
      const [victim] = await service.readyWorkers(2);
      const stress = await service.stress({ withVirsh: true, lifetimeMs: 2000 });
      expect(stress.servedBy(victim!)).to.not.be.empty;
      die(victim!);
      await service.says(/worker \d+ died: it is replaced now/);
      await service.says(/worker \d+ of generation 1 is ready/, 3);
      const replacedAt = performance.now();
      const limit = await fairTime(1000);
      await stress.flows();
      const report = await stress.stop();
      expect(service.logged(says)).to.not.be.empty;
      const diedAt = Math.min(...report.losses.map(({ at }) => at));
      expect(others(report, ownOf(victim!, diedAt))).to.deep.equal([]);
      expect(replacedAt - diedAt, 'milliseconds to a replacement').to.be.below(limit);
      expect(service.processes()).to.have.length(3);
    });
  }

  it('in the middle of a frame ends that client with what it has had', async () => {
    await start();
    await service.readyWorkers(2);
    const stress = await service.stress({ lifetimeMs: 2000 });
    const number = 1_000_000;
    const client = await service.proxy.open();
    service.daemon.withhold(number);
    client.begin(stressCall.echo, Buffer.concat([encodeInt(number), Buffer.alloc(8_000_000)]));
    await until(() => service.daemon.waiting(number) === 1, { what: 'the call to arrive' });
    client.pause();
    service.daemon.release(number);
    await until(() => service.daemon.queuedBytes > 1_000_000, { what: 'the reply to be stuck' });
    const worker = service.daemon.workers.get(number)!;
    const diedAt = performance.now();
    misbehaviour.order(worker, 'throw');
    await service.says(/worker \d+ died: it is replaced now/);
    client.resume();
    await client.end;
    expect(client.bytesReceived).to.be.within(1, 7_999_999);
    await stress.flows();
    expect(others(await stress.stop(), ownOf(worker, diedAt))).to.deep.equal([]);
  });

  it('and was the last one, connections wait until another serves', async () => {
    await start();
    const workers = await service.readyWorkers(2);
    misbehaviour.fail('start', true);
    for (const worker of workers) process.kill(worker, 'SIGKILL');
    await service.says(/worker \d+ died: it is replaced in 2 s; no other worker serves/);
    const waiting = Array.from({ length: 5 }, () => service.proxy.open());
    misbehaviour.fail('start', false);
    for (const client of await Promise.all(waiting)) client.destroy();
  });
});

describe('a worker that has grown too large', function () {
  this.timeout(60_000);
  const misbehaviour = new Misbehaviour();
  let service: Service;

  after(async () => {
    await service.end();
    misbehaviour.end();
  });

  it('drains and is replaced without a loss', async () => {
    const cluster = 'max_worker_memory = 150M\n';
    service = await Service.start({ remote: true, cluster, env: misbehaviour.env() });
    const stress = await service.stress({ withVirsh: true });
    for (const worker of await service.readyWorkers(2)) misbehaviour.order(worker, 'grow');
    await service.says(/worker \d+ has \d+ bytes, more than max_worker_memory/, 2);
    await service.says(/worker \d+ of generation 1 is ready/, 4);
    await stress.flows();
    await service.says(/worker \d+ ended with status 0/, 2);
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
    expect(service.logged(/: error : /)).to.be.empty;
  });
});
