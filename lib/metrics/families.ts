import { refusalReasons, transports, type Transport } from '../control/messages.js';
import { callStatuses, daemonFailures } from '../control/worker-report.js';
import { restartReasons } from '../control/workers.js';
import { connections } from './daemon-connections.js';
import { reloadResults, type ClientCounts, type ClientState, type Facts } from './facts.js';
import type { DaemonTotals } from './worker-totals.js';

/** One number with its labels. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric: all samples of one name. */
export interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly help: string;
  readonly labels: readonly string[];
  readonly samples: (facts: Facts) => Iterable<Sample>;
}

const single = (value: number): readonly Sample[] => [{ labels: {}, value }];

const inSeconds = (milliseconds: number): number => milliseconds / 1000;

/** A sample for each of some names. */
function by<const Name extends string>(
  label: string,
  names: readonly Name[],
  value: (name: Name, index: number) => number,
): Sample[] {
  return names.map((name, index) => ({ labels: { [label]: name }, value: value(name, index) }));
}

/** A sample for each daemon that was ever connected to. */
function byDaemon({ totals }: Facts, value: (daemon: DaemonTotals) => number): Sample[] {
  return [...totals.daemons].map(([daemon, of]) => ({ labels: { daemon }, value: value(of) }));
}

/** Calls of all workers that are with a daemon, and those that wait for their turn. */
export function pendingCalls({ workers }: Facts): { inFlight: number; held: number } {
  let [inFlight, held] = [0, 0];
  for (const { gauges } of workers) {
    inFlight += gauges?.underWay ?? 0;
    held += gauges?.held ?? 0;
  }
  return { inFlight, held };
}

function* ofWorkers(
  { workers }: Facts,
  value: (gauges: NonNullable<Facts['workers'][number]['gauges']>) => number,
): Iterable<Sample> {
  for (const { slot, gauges } of workers) {
    if (gauges !== null) yield { labels: { worker: String(slot) }, value: value(gauges) };
  }
}

function clientSamples(
  transport: Transport,
  { waiting, login, serving, readOnly }: ClientCounts,
): readonly Sample[] {
  const sample = (state: ClientState, rights: string, value: number): Sample => ({
    labels: { transport, state, rights },
    value,
  });
  return [
    sample('waiting', 'undecided', waiting),
    sample('login', 'undecided', login),
    sample('serving', 'read-write', serving - readOnly),
    sample('serving', 'read-only', readOnly),
  ];
}

/** Everything but the histogram of call durations. */
export const families: readonly Family[] = [
  {
    name: 'virtproxyd_info',
    type: 'gauge',
    help: 'Always 1; the label has the version of the program.',
    labels: ['version'],
    samples: ({ version }) => [{ labels: { version }, value: 1 }],
  },
  {
    name: 'process_start_time_seconds',
    type: 'gauge',
    help: 'When the primary process started, in seconds since the epoch.',
    labels: [],
    samples: ({ startedAt }) => single(inSeconds(startedAt)),
  },
  {
    name: 'process_cpu_seconds_total',
    type: 'counter',
    help: 'CPU time of the primary process.',
    labels: [],
    samples: ({ primary }) => single(primary.cpuSeconds),
  },
  {
    name: 'process_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory of the primary process.',
    labels: [],
    samples: ({ primary }) => single(primary.residentMemory),
  },
  {
    name: 'virtproxyd_clients',
    type: 'gauge',
    help:
      'Connected clients: waiting for a worker or a place, logging in, or served. What they may do is undecided until ' +
      'they have logged in.',
    labels: ['transport', 'state', 'rights'],
    samples: ({ clients }) =>
      transports.flatMap((transport) => clientSamples(transport, clients[transport])),
  },
  {
    name: 'virtproxyd_clients_max',
    type: 'gauge',
    help: 'Most clients that are let in (max_clients).',
    labels: [],
    samples: ({ maxClients }) => single(maxClients),
  },
  {
    name: 'virtproxyd_clients_accepted_total',
    type: 'counter',
    help: 'Connections accepted.',
    labels: ['transport'],
    samples: ({ accepted }) => by('transport', transports, (transport) => accepted[transport]),
  },
  {
    name: 'virtproxyd_clients_refused_total',
    type: 'counter',
    help: 'Clients that were not let in, by reason.',
    labels: ['reason'],
    samples: ({ refused }) => by('reason', refusalReasons, (reason) => refused[reason]),
  },
  {
    name: 'virtproxyd_client_received_bytes_total',
    type: 'counter',
    help: 'Bytes of RPC received from clients.',
    labels: ['transport'],
    samples: ({ totals }) => by('transport', transports, (name) => totals.bytes[name].in),
  },
  {
    name: 'virtproxyd_client_sent_bytes_total',
    type: 'counter',
    help: 'Bytes of RPC sent to clients.',
    labels: ['transport'],
    samples: ({ totals }) => by('transport', transports, (name) => totals.bytes[name].out),
  },
  {
    name: 'virtproxyd_calls_total',
    type: 'counter',
    help:
      'Calls for daemons that ended: answered (ok, error), cut off by the end of daemon or client (lost), or answered ' +
      'by the proxy since no daemon was there (refused).',
    labels: ['program', 'procedure', 'status'],
    samples: function* ({ totals }) {
      for (const { program, procedure, counts } of totals.calls) {
        for (const [index, status] of callStatuses.entries()) {
          const value = counts[index] ?? 0;
          if (value > 0) yield { labels: { program, procedure, status }, value };
        }
      }
    },
  },
  {
    name: 'virtproxyd_calls_in_flight',
    type: 'gauge',
    help: 'Calls that were forwarded and have no reply yet.',
    labels: [],
    samples: (facts) => single(pendingCalls(facts).inFlight),
  },
  {
    name: 'virtproxyd_calls_held',
    type: 'gauge',
    help: 'Calls held back because their client has as many under way as it may (max_client_requests).',
    labels: [],
    samples: (facts) => single(pendingCalls(facts).held),
  },
  {
    name: 'virtproxyd_daemon_connections',
    type: 'gauge',
    help: 'Open connections to daemons.',
    labels: ['daemon'],
    samples: (facts) =>
      [...connections(facts, 'open')].map(([daemon, value]) => ({ labels: { daemon }, value })),
  },
  {
    name: 'virtproxyd_daemon_connections_opened_total',
    type: 'counter',
    help: 'Connections to daemons that were opened.',
    labels: ['daemon'],
    samples: (facts) => byDaemon(facts, ({ opened }) => opened),
  },
  {
    name: 'virtproxyd_daemon_failures_total',
    type: 'counter',
    help:
      'Connections to daemons that failed: no connection to the socket (connect), an error while it was opened ' +
      '(refused), no answer in time (timeout), or an end of its own (lost).',
    labels: ['daemon', 'reason'],
    samples: ({ totals }) =>
      [...totals.daemons].flatMap(([daemon, { failures }]) =>
        daemonFailures.map((reason, index) => ({
          labels: { daemon, reason },
          value: failures[index] ?? 0,
        })),
      ),
  },
  {
    name: 'virtproxyd_daemon_restarts_total',
    type: 'counter',
    help: 'Times a daemon with clients ended and was waited for, each once for all workers.',
    labels: ['daemon'],
    samples: (facts) => byDaemon(facts, ({ restarts }) => restarts.total),
  },
  {
    name: 'virtproxyd_daemon_connections_reopening',
    type: 'gauge',
    help: 'Connections that are being opened again because their daemon went away.',
    labels: ['daemon'],
    samples: (facts) =>
      [...connections(facts, 'reopening')].map(([daemon, value]) => ({
        labels: { daemon },
        value,
      })),
  },
  {
    name: 'virtproxyd_daemon_connections_reopened_total',
    type: 'counter',
    help: 'Connections that were opened again after their daemon went away.',
    labels: ['daemon'],
    samples: (facts) => byDaemon(facts, ({ reopened }) => reopened),
  },
  {
    name: 'virtproxyd_daemon_calls_repeated_total',
    type: 'counter',
    help: 'Calls that were sent again because their daemon went away.',
    labels: ['daemon'],
    samples: (facts) => byDaemon(facts, ({ repeated }) => repeated),
  },
  {
    name: 'virtproxyd_daemon_calls_failed_total',
    type: 'counter',
    help: 'Calls that failed because their daemon went away: they could not be sent again, or it did not return in time.',
    labels: ['daemon'],
    samples: (facts) => byDaemon(facts, ({ failed }) => failed),
  },
  {
    name: 'virtproxyd_workers',
    type: 'gauge',
    help: 'Worker processes by state.',
    labels: ['state'],
    samples: ({ workers }) =>
      by(
        'state',
        ['starting', 'ready', 'draining'],
        (name) => workers.filter(({ state }) => state === name).length,
      ),
  },
  {
    name: 'virtproxyd_workers_wanted',
    type: 'gauge',
    help: 'Worker processes that there should be for new clients, as they are needed now.',
    labels: [],
    samples: ({ wantedWorkers }) => single(wantedWorkers),
  },
  {
    name: 'virtproxyd_worker_restarts_total',
    type: 'counter',
    help: 'Workers replaced because they crashed, hung, used too much memory or were worn by SASL logins.',
    labels: ['reason'],
    samples: ({ restarts }) => by('reason', restartReasons, (reason) => restarts[reason]),
  },
  {
    name: 'virtproxyd_worker_cpu_seconds_total',
    type: 'counter',
    help: 'CPU time of the workers that had this number.',
    labels: ['worker'],
    samples: ({ totals }) =>
      [...totals.cpuSeconds].map(([slot, value]) => ({ labels: { worker: String(slot) }, value })),
  },
  {
    name: 'virtproxyd_worker_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory of each worker.',
    labels: ['worker'],
    samples: (facts) => ofWorkers(facts, ({ residentMemory }) => residentMemory),
  },
  {
    name: 'virtproxyd_worker_event_loop_lag_seconds',
    type: 'gauge',
    help: 'The longest time by which the event loop of a worker was late in the last minute.',
    labels: ['worker'],
    samples: (facts) => ofWorkers(facts, ({ lag }) => lag),
  },
  {
    name: 'virtproxyd_generation',
    type: 'gauge',
    help: 'Number of the configuration in force: 1 at the start, one more for every reload that succeeded.',
    labels: [],
    samples: ({ generation }) => single(generation),
  },
  {
    name: 'virtproxyd_draining_generations',
    type: 'gauge',
    help: 'Older generations whose workers still serve clients.',
    labels: [],
    samples: ({ drainingGenerations }) => single(drainingGenerations),
  },
  {
    name: 'virtproxyd_reloads_total',
    type: 'counter',
    help: 'Reloads by result.',
    labels: ['result'],
    samples: ({ reloads }) => by('result', reloadResults, (result) => reloads[result]),
  },
  {
    name: 'virtproxyd_last_reload_successful',
    type: 'gauge',
    help: '1 if the last reload succeeded or there was none, 0 if it failed.',
    labels: [],
    samples: ({ lastReload }) => single(lastReload?.result === 'failure' ? 0 : 1),
  },
  {
    name: 'virtproxyd_certificate_expiry_timestamp_seconds',
    type: 'gauge',
    help: 'When the first certificate of cert_file (server) or ca_file (ca) expires, in seconds since the epoch.',
    labels: ['certificate'],
    samples: ({ certificates }) =>
      certificates === null
        ? []
        : by('certificate', ['server', 'ca'], (name) => inSeconds(certificates[name])),
  },
  {
    name: 'virtproxyd_log_dropped_lines_total',
    type: 'counter',
    help: 'Lines of log and audit file that were lost because nothing took them.',
    labels: [],
    samples: ({ droppedLines, totals }) => single(droppedLines + totals.lostLines),
  },
];
