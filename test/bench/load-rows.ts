import type { Bench, Subject } from './bench.js';
import type { Competitor, TlsFiles } from './competitors.js';
import { runLoad, type LoadMode, type LoadOptions, type LoadResult } from './load.js';
import type { Figures, Metrics, RowDescription } from './results.js';

/** A row that one run of the load generator measures. */
export interface LoadRow extends RowDescription {
  readonly mode: LoadMode;
  readonly options: LoadOptions;
}

const MiB = 1024 * 1024;

const latencies = {
  p50: { name: 'p50 µs', better: 'less', digits: 0 },
  p99: { name: 'p99 µs', better: 'less', digits: 0 },
  p999: { name: 'p99.9 µs', better: 'less', digits: 0 },
} as const satisfies Metrics;

const callMetrics = {
  rate: { name: 'calls/s', better: 'more', digits: 0 },
  ...latencies,
  cpu: { name: 'CPU µs/call', better: 'less', digits: 1 },
} as const satisfies Metrics;

const openMetrics = {
  rate: { name: 'opens/s', better: 'more', digits: 0 },
  ...latencies,
  cpu: { name: 'CPU µs/open', better: 'less', digits: 0 },
} as const satisfies Metrics;

const streamMetrics = {
  rate: { name: 'MiB/s', better: 'more', digits: 0 },
  cpu: { name: 'CPU µs/MiB', better: 'less', digits: 0 },
} as const satisfies Metrics;

function calls(clients: number, inFlight: number): LoadRow {
  return {
    name: `${clients}x${inFlight}`,
    title: `${count(clients, 'client')}, ${count(inFlight, 'call')} each in flight`,
    mode: 'calls',
    metrics: callMetrics,
    options: { clients, 'in-flight': inFlight },
  };
}

function replies(clients: number, label: string, bytes: number): LoadRow {
  return {
    name: `reply-${label}`,
    title: `${count(clients, 'client')}, replies of ${label}B`,
    mode: 'calls',
    metrics: callMetrics,
    options: { clients, 'reply-bytes': bytes },
  };
}

function opens(clients: number, prefix = ''): LoadRow {
  return {
    name: `${prefix}opens-${clients}`,
    title: `${prefix === '' ? '' : 'TLS: '}connect to first answer, ${clients} at a time`,
    mode: 'opens',
    metrics: openMetrics,
    options: { clients },
  };
}

function stream(mode: 'download' | 'upload'): LoadRow {
  return {
    name: `stream-${mode}`,
    title: `${mode} from memory in one stream`,
    mode,
    metrics: streamMetrics,
    options: {},
  };
}

/** Rows that tell how much a competitor can do, where the load generator must not be the limit. */
export const capacityRows = ['16x1', '64x1', '4x4'] as const;

export const plainRows: readonly LoadRow[] = [
  calls(1, 1),
  calls(16, 1),
  calls(64, 1),
  calls(1, 4),
  calls(4, 4),
  replies(4, '4Ki', 4096),
  replies(4, '64Ki', 64 * 1024),
  replies(2, '4Mi', 4 * MiB),
  opens(1),
  opens(16),
  stream('download'),
  stream('upload'),
];

export const tlsRows: readonly LoadRow[] = [
  { ...calls(16, 1), name: 'tls-16x1', title: 'TLS: 16 clients, 1 call each in flight' },
  opens(4, 'tls-'),
];

/** Measures rows with all competitors in front of the stand-in daemon. */
export async function playPlain(bench: Bench, rows: readonly LoadRow[]): Promise<void> {
  await play(bench, rows, bench.competitors);
}

/** The same over TLS. A daemon alone does not speak it. */
export async function playTls(
  bench: Bench,
  rows: readonly LoadRow[],
  server: TlsFiles,
  client: TlsFiles,
): Promise<void> {
  const proxies = bench.competitors.filter(({ kind }) => kind !== 'direct');
  await play(bench, rows, proxies, { server, client });
}

async function play(
  bench: Bench,
  rows: readonly LoadRow[],
  competitors: readonly Competitor[],
  tls?: { readonly server: TlsFiles; readonly client: TlsFiles },
): Promise<void> {
  const subjects: Subject[] = [];
  for (const competitor of competitors) {
    const task = { daemon: bench.daemon, ...(tls && { tls: tls.server }) };
    subjects.push(await bench.start(competitor, task));
  }
  const nameOf = ({ competitor }: Subject): string => competitor.name;
  await bench.interleave(rows, subjects, nameOf, async (row, subject) => {
    const where = tls ? tlsOptions(subject, tls.client) : { socket: subject.socket };
    return await measureLoad(bench, row, subject, where);
  });
}

async function measureLoad(
  bench: Bench,
  row: LoadRow,
  subject: Subject,
  where: LoadOptions,
): Promise<Figures> {
  const { seconds, streamBytes } = bench.options;
  const watched = subject.pids();
  const result = await runLoad(bench.programs.generator, row.mode, {
    ...where,
    ...row.options,
    seconds,
    'warm-up': seconds / 3,
    'stream-bytes': streamBytes,
    ...(watched.length > 0 && { watch: watched.join(',') }),
  });
  const cpu = watched.length > 0 ? result.cpuSeconds : null;
  return row.metrics === streamMetrics
    ? streamFigures(result, cpu, streamBytes)
    : callFigures(result, cpu);
}

function callFigures({ perSecond, latency, count }: LoadResult, cpu: number | null): Figures {
  if (latency === null) throw new Error('Not one call was answered in the time measured.');
  const { p50, p99, p999 } = latency;
  return { rate: perSecond, p50, p99, p999, ...(cpu !== null && { cpu: (cpu * 1e6) / count }) };
}

function streamFigures({ seconds }: LoadResult, cpu: number | null, bytes: number): Figures {
  const size = bytes / MiB;
  return { rate: size / seconds, ...(cpu !== null && { cpu: (cpu * 1e6) / size }) };
}

function tlsOptions({ competitor, tlsPort }: Subject, { ca, cert, key }: TlsFiles): LoadOptions {
  return {
    'tls-port': tlsPort ?? 0,
    ...{ ca, cert, key },
    'go-ahead': competitor.kind === 'relay' ? 0 : 1,
  };
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
