import { expect } from 'chai';
import { openFilesLimit } from '../../../lib/native/descriptors.js';
import { DescriptorReserve } from '../../../lib/primary/clients/descriptor-reserve.js';
import { FakeIntervals } from '../fake-intervals.js';
import { recordedLog } from '../recorded-log.js';

const checkInterval = 50;

/** A descriptor's number as it is when none but a few are left. */
const scarce = Number(openFilesLimit().soft) - 1;
const plenty = 10;

describe('primary/clients/descriptor-reserve', () => {
  let queue: number;
  let done: string[];
  let intervals: FakeIntervals;
  let lines: string[];
  let reserve: DescriptorReserve;

  beforeEach(() => {
    queue = 0;
    done = [];
    intervals = new FakeIntervals();
    const recorded = recordedLog();
    lines = recorded.lines;
    reserve = new DescriptorReserve(
      {
        queueLength: () => queue,
        pause: () => done.push('pause'),
        resume: () => done.push('resume'),
      },
      recorded.log,
    );
  });
  afterEach(() => intervals.restore());

  it('lets clients in while there are descriptors', () => {
    queue = 1000;
    reserve.onDescriptor(plenty);
    expect(done).to.deep.equal([]);
    expect(reserve.isExhausted).to.be.false;
  });

  it('pauses once when they are scarce, says so, and resumes when they are not', () => {
    reserve.onDescriptor(scarce);
    reserve.onDescriptor(scarce);
    expect([done, reserve.isExhausted]).to.deep.equal([['pause'], true]);
    expect(lines).to.have.lengthOf(1);
    expect(lines[0]).to.match(
      /^warning: too few descriptors are left \(1 times so far\): .*LimitN/,
    );
    intervals.pass(checkInterval);
    expect([done, reserve.isExhausted]).to.deep.equal([['pause', 'resume'], false]);
  });

  it('stays paused until half of those that waited are served', () => {
    queue = 10;
    reserve.onDescriptor(scarce);
    queue = 6;
    intervals.pass(checkInterval);
    expect(done).to.deep.equal(['pause']);
    queue = 5;
    intervals.pass(checkInterval);
    expect(done).to.deep.equal(['pause', 'resume']);
  });

  it('remembers how many may wait, until none does', () => {
    queue = 10;
    reserve.onDescriptor(scarce);
    queue = 5;
    intervals.pass(checkInterval);
    queue = 9;
    reserve.onDescriptor(plenty);
    expect(done).to.deep.equal(['pause', 'resume']);
    queue = 10;
    reserve.onDescriptor(plenty);
    expect(done.splice(0)).to.deep.equal(['pause', 'resume', 'pause']);
    queue = 0;
    intervals.pass(checkInterval);
    queue = 10;
    reserve.onDescriptor(plenty);
    expect(done).to.deep.equal(['resume']);
  });

  it('goes on when only a worker has too few, and says so', () => {
    reserve.onWorkerScarcity();
    expect(done).to.deep.equal([]);
    expect(lines).to.have.lengthOf(1);
  });
});
