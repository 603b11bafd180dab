import { expect } from 'chai';
import { StatusReport } from '../../../lib/primary/host/status-report.js';
import { FakeIntervals } from '../fake-intervals.js';

describe('primary/host/status-report', () => {
  let intervals: FakeIntervals;
  let sent: string[];
  let report: StatusReport;
  let clients: number;

  beforeEach(() => {
    intervals = new FakeIntervals();
    sent = [];
    clients = 0;
    const serviceManager = {
      status: (text: string) => void sent.push(`status: ${text}`),
      reloaded: (text: string) => void sent.push(`reloaded: ${text}`),
    };
    report = new StatusReport(serviceManager, () => `${clients} clients`);
  });
  afterEach(() => intervals.restore());

  it('tells how things stand at once, and as they are every ten seconds', () => {
    report.start();
    expect(sent.splice(0)).to.deep.equal(['status: 0 clients; not reloaded yet']);
    clients = 3;
    intervals.pass(9999);
    expect(sent).to.deep.equal([]);
    intervals.pass(1);
    expect(sent).to.deep.equal(['status: 3 clients; not reloaded yet']);
  });

  it('tells of a reload as soon as it has ended, and from then on', () => {
    report.start();
    report.onReloaded('the last reload failed: no such file');
    intervals.pass(10_000);
    expect(sent.slice(1)).to.deep.equal([
      'reloaded: 0 clients; the last reload failed: no such file',
      'status: 0 clients; the last reload failed: no such file',
    ]);
  });
});
