import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { IdleClock } from '../../../lib/primary/host/idle-clock.js';
import { until } from '../../peers/waiting.js';

describe('primary/host/idle-clock', () => {
  let isIdle: boolean;
  let idleTimes: number[];
  let clock: IdleClock;
  const make = (seconds: number): IdleClock => {
    clock = new IdleClock(
      seconds,
      () => isIdle,
      (after) => idleTimes.push(after),
    );
    return clock;
  };
  beforeEach(() => {
    isIdle = true;
    idleTimes = [];
  });
  afterEach(() => clock.stop());

  const toTell = (): Promise<unknown> =>
    until(() => idleTimes.length > 0, { what: 'the idle time to pass' });

  it('tells when nobody has been there for its time, from when it is first asked to look', async () => {
    make(0.02).look();
    await toTell();
    expect(idleTimes).to.deep.equal([0.02]);
  });

  it('begins anew with everybody who comes and goes', async () => {
    make(0.05).look();
    for (let visit = 0; visit < 4; visit++) {
      isIdle = false;
      clock.look();
      await delay(20);
      isIdle = true;
      clock.look();
    }
    expect(idleTimes).to.deep.equal([]);
    await toTell();
  });

  it('never tells with a time of 0, until it is given one', async () => {
    make(0).look();
    await delay(5);
    expect(idleTimes).to.deep.equal([]);
    clock.set(0.01);
    await toTell();
    expect(idleTimes).to.deep.equal([0.01]);
  });

  it('never tells once it has been stopped, whatever it is told', async () => {
    make(0.01).look();
    clock.stop();
    clock.look();
    clock.set(0.001);
    await delay(30);
    expect(idleTimes).to.deep.equal([]);
  });
});
