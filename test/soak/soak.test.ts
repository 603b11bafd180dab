import { expect } from 'chai';
import { certificatesLacking } from '../peers/certificates.js';
import { Soak } from './soak.js';

const obstacle = certificatesLacking();

describe(`a soak${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(150_000);

  it('leaves nothing behind', async function () {
    if (obstacle !== undefined) this.skip();
    const report = await Soak.run({ seconds: 20, sessions: Infinity, clients: 8 });
    expect(report.findings.join('\n')).to.equal('');
    expect(report.sessions).to.be.above(200);
    expect(report.cutOff).to.be.above(100);
    expect(report.pongs).to.be.above(10);
    expect(report.kills).to.be.above(0);
  });
});
