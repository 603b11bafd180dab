import { expect } from 'chai';
import { Lifecycle, primaryStates, type PrimaryState } from '../../lib/primary/lifecycle.js';
import { recordedLog } from './recorded-log.js';

describe('primary/lifecycle', () => {
  let told: string[];
  let life: Lifecycle;
  /** Goes on from a state as soon as it is entered, once. */
  let onwards: [PrimaryState, PrimaryState] | null;
  beforeEach(() => {
    told = [];
    onwards = null;
    life = new Lifecycle(
      {
        onState: (state, from, reason) => {
          told.push([from, state, reason].join(' ').trim());
          if (onwards?.[0] !== state) return;
          const [, next] = onwards;
          onwards = null;
          life.transition([state], next);
        },
      },
      recordedLog().log,
    );
  });

  it('goes from the states that were named, and tells what it has come to', () => {
    expect(life.transition(['starting'], 'serving')).to.be.true;
    expect(life.transition(['starting', 'reloading'], 'serving')).to.be.false;
    expect(life.transition(['serving'], 'upgrading', 'asked')).to.be.true;
    expect(life.state).to.equal('upgrading');
    expect(told).to.deep.equal(['starting serving', 'serving upgrading asked']);
  });

  it('lets a state be left as soon as it is entered', () => {
    onwards = ['serving', 'reloading'];
    life.transition(['starting'], 'serving');
    expect(life.state).to.equal('reloading');
    expect(told).to.deep.equal(['starting serving', 'serving reloading']);
  });

  it('stops from every state, once', () => {
    for (const state of primaryStates) {
      if (state === 'stopping') continue;
      life = new Lifecycle(
        { onState: (...its) => void told.push(its.join(' ')) },
        recordedLog().log,
      );
      life.transition(['starting'], state);
      told = [];
      life.stop('first');
      life.stop('second');
      expect(told).to.deep.equal([`stopping ${state} first`]);
    }
  });

  it('lets new clients in while it serves, reloads and upgrades', () => {
    const serving = primaryStates.filter((state) => {
      life.transition(primaryStates, state);
      return life.isServing;
    });
    expect(serving).to.deep.equal(['serving', 'reloading', 'upgrading']);
  });
});
