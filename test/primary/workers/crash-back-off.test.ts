import { expect } from 'chai';
import { CrashBackOff } from '../../../lib/primary/workers/crash-back-off.js';

describe('primary/workers/crash-back-off', () => {
  it('replaces at once first, then after 1, 2, 4, 8, 16 and every 30 seconds', () => {
    const backOff = new CrashBackOff();
    const waits = Array.from({ length: 9 }, (_, second) => backOff.onCrash(second));
    expect(waits).to.deep.equal([0, 1, 2, 4, 8, 16, 30, 30, 30]);
  });

  it('begins anew after more than a minute without a crash', () => {
    const backOff = new CrashBackOff();
    expect(backOff.onCrash(10)).to.equal(0);
    expect(backOff.onCrash(70)).to.equal(1);
    expect(backOff.onCrash(130.5)).to.equal(0);
    expect(backOff.onCrash(131)).to.equal(1);
  });
});
