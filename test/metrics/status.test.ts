import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import type { DaemonSocket, Facts } from '../../lib/metrics/facts.js';
import { Exposition } from '../../lib/metrics/exposition.js';
import { missingParts } from '../../lib/metrics/readiness.js';
import { Recent } from '../../lib/metrics/recent.js';
import { statusOf } from '../../lib/metrics/status.js';
import { warningsOn } from '../../lib/metrics/warnings.js';
import { WorkerGauges } from '../../lib/metrics/worker-gauges.js';
import { WorkerTotals } from '../../lib/metrics/worker-totals.js';
import { Scrape } from '../peers/scrape.js';
import { day, factsWith, none, now, workerAt } from './facts.js';
import { reportOf } from './reports.js';

const socket: DaemonSocket = {
  daemon: 'virtqemud',
  path: '/run/libvirt/virtqemud-sock',
  isThere: true,
  isRouted: false,
  isHypervisor: true,
};
const storage: DaemonSocket = {
  ...socket,
  daemon: 'virtstoraged',
  path: '/run/libvirt/virtstoraged-sock',
  isHypervisor: false,
};

/** Facts with virtqemud away, for the return of which so many connections of each worker wait. */
function awaiting(...connections: number[]): Partial<Facts> {
  const totals = new WorkerTotals();
  const workers = connections.map((reopening, slot) => {
    const report = reportOf(0, 1);
    const restarts = [{ path: socket.path, at: 1000 + slot }];
    const [daemon] = report.daemons;
    const gauges = new WorkerGauges();
    gauges.take({ ...report, daemons: [{ ...daemon!, restarts, reopening }] });
    totals.add(slot, { ...report, daemons: [{ ...daemon!, restarts, reopening }] });
    return { ...workerAt(slot), gauges };
  });
  return { workers, totals };
}

describe('readiness', () => {
  const cases: [what: string, facts: Partial<Facts>, sockets: DaemonSocket[], says: RegExp[]][] = [
    ['is there with a worker and a hypervisor', {}, [socket, { ...storage, isThere: false }], []],
    ['is there in session mode, where daemons are started', {}, [], []],
    ['lacks a worker', { workers: [workerAt(0, 'draining')] }, [socket], [/No worker/]],
    ['lacks a primary that serves', { isServing: false }, [socket], [/No new clients/]],
    [
      'lacks a hypervisor',
      {},
      [{ ...socket, isThere: false }, storage],
      [/no daemon of a hypervisor/],
    ],
    [
      'lacks a daemon that [routes] names',
      {},
      [socket, { ...storage, isThere: false, isRouted: true }],
      [/'\/run\/libvirt\/virtstoraged-sock' of virtstoraged/],
    ],
    [
      'waits for a daemon that clients of two workers wait for',
      awaiting(2, 1),
      [socket],
      [/^virtqemud went away: 3 connections wait for its return\.$/],
    ],
    ['is there when all have been opened again', awaiting(0, 0), [socket], []],
  ];
  for (const [what, facts, sockets, says] of cases) {
    it(what, () => {
      const missing = missingParts(factsWith(facts), sockets);
      expect(missing).to.have.length(says.length);
      says.forEach((pattern, index) => expect(missing[index]).to.match(pattern));
    });
  }
});

describe('warnings', () => {
  const late = new WorkerGauges();
  late.take({ ...reportOf(0, 1), lagSeconds: 2.5 });
  const lossy = new WorkerTotals();
  lossy.add(0, { ...reportOf(0, 1), lostLines: 3 });
  const cases: [what: string, facts: Partial<Facts>, says: RegExp | null][] = [
    ['nothing', {}, null],
    ['a failed reload', { lastReload: { at: now, result: 'failure' } }, /last reload failed/],
    ['nothing of a good reload', { lastReload: { at: now, result: 'success' } }, null],
    ['max_clients nearly reached', { maxClients: 4 }, /4 of 4 clients/],
    [
      'clients that wait',
      { clients: { unix: { ...none, waiting: 7 }, tcp: none, tls: none } },
      /7 clients wait/,
    ],
    ['a worker that is missing', { workers: [workerAt(0)] }, /1 of 2 workers/],
    [
      'a worker that stood still',
      { workers: [workerAt(0), { ...workerAt(1), gauges: late }] },
      /Worker 1 stood still for 2.5 s/,
    ],
    [
      'a certificate about to expire',
      { certificates: { server: now + 9.5 * day, ca: now + 900 * day } },
      /server certificate expires in 9 days/,
    ],
    [
      'one that has expired',
      { certificates: { server: now + 900 * day, ca: now - 1 } },
      /CA certificate has expired/,
    ],
    ['lost lines of the primary', { droppedLines: 2 }, /2 lines of the log/],
    ['lost lines of workers', { totals: lossy }, /3 lines of the log/],
  ];
  for (const [what, facts, says] of cases) {
    it(`tell of ${what}`, () => {
      const texts = warningsOn(factsWith(facts), [socket], now).map(({ text }) => text);
      expect(texts).to.have.length(says === null ? 0 : 1);
      if (says !== null) expect(texts[0]).to.match(says);
    });
  }
});

describe('status', () => {
  const healthWith = (facts: Partial<Facts>): string =>
    statusOf(factsWith(facts), [socket], new Recent(), now).health;

  it('is ok, degraded or down', () => {
    expect(healthWith({})).to.equal('ok');
    expect(healthWith({ droppedLines: 1 })).to.equal('degraded');
    expect(healthWith({ workers: [workerAt(0, 'starting')] })).to.equal('down');
    expect(healthWith({ isServing: false })).to.equal('down');
  });

  it('lists daemons that are there, should be or were used, each once', () => {
    const totals = new WorkerTotals();
    const [daemon] = reportOf(1, 1).daemons;
    totals.add(0, { ...reportOf(1, 1), daemons: [{ ...daemon!, daemon: 'other' }] });
    const sockets = [
      socket,
      { ...storage, isThere: false },
      { ...storage, daemon: 'virtsecretd', path: '/x', isThere: false, isRouted: true },
    ];
    const { daemons } = statusOf(factsWith({ totals }), sockets, new Recent(), now);
    expect(daemons.map(({ daemon: name, isThere }) => [name, isThere])).to.deep.equal([
      ['virtqemud', true],
      ['virtsecretd', false],
      ['other', null],
    ]);
  });
});

describe('the status of a daemon that went away', () => {
  it('says how many connections wait for it, and counts its end once', () => {
    const facts = factsWith(awaiting(2, 1));
    const { daemons, warnings, health } = statusOf(facts, [socket], new Recent(), now);
    expect(daemons[0]).to.include({ daemon: 'virtqemud', reopening: 3, restarts: 1 });
    expect(warnings.map(({ level }) => level)).to.deep.equal(['error']);
    expect(health).to.equal('degraded');
  });
});

describe('exposition', () => {
  it('is what Prometheus takes, with and without anything to count', async () => {
    const exposition = new Exposition();
    const empty = new Scrape(await exposition.text(factsWith({ workers: [] })));
    expect(empty.value('virtproxyd_workers{state="ready"}')).to.equal(0);
    const totals = new WorkerTotals();
    const gauges = new WorkerGauges();
    const report = { ...reportOf(5, 0.01, 2), underWay: 4, held: 3, lagSeconds: 0.25 };
    for (const slot of [0, 1, 0]) totals.add(slot, report);
    gauges.take(report);
    const full = new Scrape(
      await exposition.text(
        factsWith({
          version: 'a"b\\c\nd',
          totals,
          workers: [{ ...workerAt(0), gauges }, workerAt(1)],
          certificates: { server: now, ca: now + 1000 },
        }),
      ),
    );
    const expected = {
      'virtproxyd_info{version="a\\"b\\\\c\\nd"}': 1,
      'virtproxyd_calls_total{program="remote",procedure="CONNECT_GET_HOSTNAME",status="ok"}': 9,
      'virtproxyd_calls_total{program="remote",procedure="CONNECT_GET_HOSTNAME",status="error"}': 6,
      'virtproxyd_call_duration_seconds_bucket{daemon="virtqemud",le="0.005"}': 0,
      'virtproxyd_call_duration_seconds_bucket{daemon="virtqemud",le="0.01"}': 15,
      'virtproxyd_call_duration_seconds_count{daemon="virtqemud"}': 15,
      'virtproxyd_client_received_bytes_total{transport="unix"}': 15 * 28,
      'virtproxyd_worker_cpu_seconds_total{worker="0"}': 1,
      'virtproxyd_worker_cpu_seconds_total{worker="1"}': 0.5,
      'virtproxyd_worker_event_loop_lag_seconds{worker="0"}': 0.25,
      virtproxyd_calls_in_flight: 4,
      virtproxyd_calls_held: 3,
      'virtproxyd_daemon_connections{daemon="virtqemud"}': 1,
      'virtproxyd_certificate_expiry_timestamp_seconds{certificate="ca"}': now / 1000 + 1,
      process_start_time_seconds: (now - day) / 1000,
    };
    for (const [series, value] of Object.entries(expected)) {
      expect(full.value(series), series).to.equal(value);
    }
    expect(full.names).to.deep.equal(empty.names);
  });

  it('is described in the manual page, name by name', async () => {
    const { names } = new Scrape(await new Exposition().text(factsWith()));
    const page = new URL('../../../man/virtproxyd-metrics.7', import.meta.url);
    const [, section = ''] = (await readFile(page, 'utf8')).split('.SH METRICS\n');
    const heads = section.matchAll(/^\.TP\n(.*)$/gm);
    const described = [...heads].flatMap(([, head = '']) =>
      [...head.matchAll(/\\fB(\w+)\\fP/g)].map(([, name]) => name),
    );
    expect(described).to.have.members(names);
  });
});
