import { expect } from 'chai';
import { Campaign } from './campaign.js';

describe('fuzzed clients and daemons', function () {
  this.timeout(150_000);

  it('harm nobody but themselves', async () => {
    const report = await Campaign.run({ seed: 'npm test', seconds: 40 });
    expect(report.findings.join('\n')).to.equal('');
    expect(report.sessions).to.be.above(100);
    expect(report.judged).to.be.above(1000);
    expect(report.daemonFaults).to.be.above(50);
  });
});
