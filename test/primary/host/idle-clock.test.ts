import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { IdleClock } from '../../../lib/primary/host/idle-clock.js';
import { until } from '../../peers/waiting.js';

describe('primary/host/idle-clock', () => {
  let isIdle: boolean;
  let idleTimes: number[];
  let clock: IdleClock;
  const make = (seconds: number): IdleClock => {
    clock = new IdleClock(seconds);
    return clock;
  };
  const idleness = {
    isIdle: () => isIdle,
    onIdle: (after: number) => void idleTimes.push(after),
  };
  beforeEach(() => {
    isIdle = true;
    idleTimes = [];
  });
  afterEach(() => clock.stop());

  const toTell = (): Promise<unknown> =>
    until(() => idleTimes.length > 0, { what: 'the idle time to pass' });

  it('tells when nobody has been there for its time, from its start on', async () => {
    make(0.02).start(idleness);
    await toTell();
    expect(idleTimes).to.deep.equal([0.02]);
  });

  it('begins anew with everybody who comes and goes', async () => {
    make(0.05).start(idleness);
    for (let visit = 0; visit < 4; visit++) {
      isIdle = false;
      clock.restart();
      await delay(20);
      isIdle = true;
      clock.restart();
    }
    expect(idleTimes).to.deep.equal([]);
    await toTell();
  });

  it('never tells with a time of 0, until it is given one', async () => {
    make(0).start(idleness);
    await delay(5);
    expect(idleTimes).to.deep.equal([]);
    clock.set(0.01);
    await toTell();
    expect(idleTimes).to.deep.equal([0.01]);
  });

  it('never tells once it has been stopped, whatever it is told', async () => {
    make(0.01).start(idleness);
    clock.stop();
    clock.restart();
    clock.set(0.001);
    await delay(30);
    expect(idleTimes).to.deep.equal([]);
  });
});
