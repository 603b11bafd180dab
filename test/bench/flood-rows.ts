import type { Bench, Subject } from './bench.js';
import { runLoad, startLoad, type LoadMode, type LoadOptions } from './load.js';
import { withMostMemory } from './processes.js';
import type { Figures, RowDescription } from './results.js';

const MiB = 1024 * 1024;

const metrics = {
  ratio: { name: 'p99 ratio', better: 'less', digits: 1 },
  beside: { name: 'p99 µs', better: 'less', digits: 0 },
  quiet: { name: 'quiet p99 µs', better: 'less', digits: 0 },
  memory: { name: 'MiB at most', better: 'less', digits: 0 },
} as const;

export interface FloodRow extends RowDescription {
  readonly mode: LoadMode | 'unread';
  readonly options: LoadOptions;
}

function flood(
  name: string,
  title: string,
  mode: FloodRow['mode'],
  options: LoadOptions,
): FloodRow {
  return { name: `flood-${name}`, title: `one client beside ${title}`, metrics, mode, options };
}

/** What a client that has one call in flight notices of others that behave as badly as they can. */
export const floodRows: readonly FloodRow[] = [
  flood('calls', 'one with 4 000 calls in flight', 'calls', { 'in-flight': 4000 }),
  flood('unread', 'one that reads none of 100 replies of 4 MiB', 'unread', {
    'in-flight': 100,
    'reply-bytes': 4 * MiB,
  }),
  flood('opens', 'one that opens and closes as fast as it can', 'opens', {}),
  flood('clients', '5 000 that open and close at the same time', 'opens', { clients: 5000 }),
];

/**
 * Measures rows with all competitors; without a proxy the daemon and the machine alone are what
 * floods fill.
 */
export async function playFloods(bench: Bench, rows: readonly FloodRow[]): Promise<void> {
  const subjects: Subject[] = [];
  for (const competitor of bench.competitors) {
    subjects.push(await bench.start(competitor, { daemon: bench.daemon }));
  }
  const nameOf = ({ competitor }: Subject): string => competitor.name;
  await bench.interleave(rows, subjects, nameOf, (row, subject) => measure(bench, row, subject));
}

async function measure(bench: Bench, row: FloodRow, subject: Subject): Promise<Figures> {
  const { generator } = bench.programs;
  const { seconds } = bench.options;
  const { socket } = subject;
  const healthy = async (): Promise<number> => {
    const options = { socket, seconds, 'warm-up': seconds / 3 };
    const { latency } = await runLoad(generator, 'calls', options);
    if (latency === null) throw new Error('Not one call was answered in the time measured.');
    return latency.p99;
  };
  const quiet = await healthy();
  // Longer than it is needed: it is killed.
  const flooder = startLoad(generator, row.mode, { socket, seconds: 600, ...row.options });
  try {
    const { result: beside, most } = await withMostMemory(subject.pids(), healthy);
    return { ratio: beside / quiet, beside, quiet, memory: most / MiB };
  } finally {
    await flooder.kill('SIGKILL');
  }
}
