import { expect } from 'chai';
import { lossesOf, Service } from './service.js';

describe('an upgrade under stress', function () {
  this.timeout(60_000);
  let service: Service;

  afterEach(() => service.end());

  it('five times loses nothing on any transport', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress({ withVirsh: true });
    const pids = [service.pid];
    for (let each = 0; each < 5; each++) {
      pids.push(await service.upgrade());
      await stress.flows();
    }
    const report = await stress.stop();
    expect(lossesOf(report)).to.deep.equal([]);
    console.log({ ...report, losses: 0 });
  });
});
