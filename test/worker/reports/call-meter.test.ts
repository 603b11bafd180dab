import { expect } from 'chai';
import { durationBounds } from '../../../lib/control/worker-report.js';
import { program } from '../../../lib/rpc/frame.js';
import { CallMeter } from '../../../lib/worker/reports/call-meter.js';

const getHostname = 59;

describe('call meter', () => {
  let meter: CallMeter;

  beforeEach(() => (meter = new CallMeter(new Set(['virtqemud']))));

  it('counts by program, procedure and status, and tells each count once', () => {
    meter.ended(program.remote, getHostname, 'ok');
    meter.ended(program.remote, getHostname, 'ok');
    meter.ended(program.remote, getHostname, 'refused');
    meter.ended(program.qemu, 1, 'error');
    meter.ended(program.lxc, 1, 'lost');
    expect(meter.take().calls).to.deep.equal([
      { program: program.remote, procedure: getHostname, counts: [2, 0, 0, 1] },
      { program: program.qemu, procedure: 1, counts: [0, 1, 0, 0] },
      { program: program.lxc, procedure: 1, counts: [0, 0, 1, 0] },
    ]);
    expect(meter.take().calls).to.deep.equal([]);
  });

  it('counts procedures that the table lacks as one, whatever their number', () => {
    for (const number of [0, 4000, 2 ** 31, 2 ** 32 - 1]) meter.ended(program.remote, number, 'ok');
    meter.ended(program.lxc, 77, 'ok');
    meter.ended(0x1234, 1, 'ok');
    expect(meter.take().calls).to.deep.equal([
      { program: program.remote, procedure: 0, counts: [4, 0, 0, 0] },
      { program: program.lxc, procedure: 0, counts: [1, 0, 0, 0] },
    ]);
  });

  it('sorts answered calls by duration: a bound belongs to its bucket', () => {
    const daemon = meter.daemon('virtqemud');
    meter.now = 1_000_000;
    for (const [seconds, succeeded] of [
      [0, true],
      [0.25, true],
      [0.26, false],
      [60, true],
      [61, true],
    ] as const) {
      daemon.answered(program.remote, getHostname, meter.now - seconds * 1000, succeeded);
    }
    const [report] = meter.take().daemons;
    const { durations } = report!;
    expect(durations).to.have.length(durationBounds.length + 1);
    expect(durations[0]).to.equal(1);
    expect(durations[durationBounds.indexOf(0.25)]).to.equal(1);
    expect(durations[durationBounds.indexOf(0.5)]).to.equal(1);
    expect(durations.at(-1)).to.equal(1);
    expect(durations.reduce((sum, count) => sum + count)).to.equal(5);
    expect(report?.seconds).to.be.closeTo(121.51, 1e-6);
  });

  it('follows connections: how many are open, were opened and failed', () => {
    const daemon = meter.daemon('virtqemud');
    daemon.opened();
    daemon.opened();
    daemon.closed();
    daemon.failed('timeout');
    expect(meter.take().daemons[0]).to.include({ daemon: 'virtqemud', open: 1, opened: 2 });
    daemon.closed();
    expect(meter.take().daemons[0]).to.deep.include({ open: 0, opened: 0, failures: [0, 0, 0, 0] });
  });

  it('tells each restart of a daemon once, and how many connections wait for it', () => {
    const daemon = meter.daemon('virtqemud');
    daemon.wentAway('/run/sock');
    daemon.reopening();
    daemon.reopening();
    daemon.settled(true);
    daemon.carriedOver(3, 1);
    const [report] = meter.take().daemons;
    expect(report).to.include({ reopening: 1, reopened: 1, repeated: 3, failed: 1 });
    expect(report?.restarts.map(({ path }) => path)).to.deep.equal(['/run/sock']);
    daemon.settled(false);
    const later = { restarts: [], reopening: 0, reopened: 0, repeated: 0, failed: 0 };
    expect(meter.take().daemons[0]).to.deep.include(later);
  });

  it('has one name for all daemons that only clients know', () => {
    expect(meter.daemon('virtmadeupd')).to.equal(meter.daemon('virtothermadeupd'));
    meter.daemon('virtqemud');
    const names = meter.take().daemons.map(({ daemon }) => daemon);
    expect(names).to.have.members(['virtqemud', 'other']);
  });
});
