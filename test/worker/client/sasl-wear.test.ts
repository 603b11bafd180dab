import { expect } from 'chai';
import { SaslWear } from '../../../lib/worker/client/sasl-wear.js';

describe('worker/client/sasl-wear', () => {
  it('tells once, when half of the thread keys are in use', () => {
    const told: string[] = [];
    let used = 3;
    const wear = new SaslWear(
      (state) => told.push(state),
      () => ({ used, most: 1024 }),
    );
    wear.check();
    used = 511;
    wear.check();
    expect(told).to.deep.equal([]);
    used = 512;
    wear.check();
    used = 1024;
    wear.check();
    expect(told).to.deep.equal(['512 of 1024 thread keys in use']);
  });

  it('tells when the first look finds none left', () => {
    const told: string[] = [];
    const wear = new SaslWear(
      (state) => told.push(state),
      () => ({ used: 128, most: 128 }),
    );
    wear.check();
    expect(told).to.deep.equal(['128 of 128 thread keys in use']);
  });
});
