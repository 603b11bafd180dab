import { expect } from 'chai';
import { lossesOf, Service } from './service.js';

describe('a reload under stress', function () {
  this.timeout(60_000);
  let service: Service;

  afterEach(() => service.end());

  it('ten times loses nothing on any transport', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress({ withVirsh: true });
    for (let each = 0; each < 10; each++) {
      await service.reload();
      await stress.flows();
    }
    const report = await stress.stop();
    expect(lossesOf(report)).to.deep.equal([]);
    console.log({ ...report, losses: 0 });
  });
});
