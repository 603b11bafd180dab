import { expect } from 'chai';
import { lossesOf, Service } from './service.js';

describe('a worker killed with -9 under stress', function () {
  this.timeout(60_000);
  let service: Service;

  afterEach(() => service.end());

  it('costs its own clients alone', async () => {
    service = await Service.start({ remote: true });
    const [first, second] = await service.readyWorkers(2);
    const stress = await service.stress({ withVirsh: true, lifetimeMs: 2000 });
    const own = stress.servedBy(first!);
    const others = stress.servedBy(second!);
    console.log(own, others);
    const killedAt = performance.now();
    process.kill(first!, 'SIGKILL');
    await service.says(/worker \d+ of generation 1 is ready/, 3);
    console.log('ready', performance.now() - killedAt);
    await stress.flows();
    const report = await stress.stop();
    console.log(
      { ...report, losses: 0 },
      lossesOf(report),
      first,
      second,
      report.losses.map((l) => [l.since - killedAt, l.at - killedAt]),
    );
    console.log(service.log());
  });
});
