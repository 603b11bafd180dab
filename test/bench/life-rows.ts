import { setTimeout as delay } from 'node:timers/promises';
import type { Bench, Subject } from './bench.js';
import type { Competitor } from './competitors.js';
import { openIdleClients } from './load.js';
import { memoryBytes } from './processes.js';
import type { Figures, RowDescription } from './results.js';

/** Idle clients after which memory is looked at. */
const fewClients = 1000;
const manyClients = 5000;

const settlePollMs = 250;

const startRow = {
  name: 'start',
  title: 'from exec to the first answered call',
  metrics: { time: { name: 'ms', better: 'less', digits: 0 } },
} as const satisfies RowDescription;

const idleRow = {
  name: 'idle',
  title: `memory of all processes with ${fewClients} and ${manyClients} idle clients`,
  metrics: {
    many: { name: `KiB a client, ${manyClients}`, better: 'less', digits: 1 },
    few: { name: `KiB a client, ${fewClients}`, better: 'less', digits: 1 },
    empty: { name: 'MiB without', better: 'less', digits: 1 },
  },
} as const satisfies RowDescription;

/** Rows for which every repetition starts a competitor anew. */
export const lifeRows: readonly RowDescription[] = [startRow, idleRow];

export async function playLife(bench: Bench, rows: readonly RowDescription[]): Promise<void> {
  const proxies = bench.competitors.filter(({ kind }) => kind !== 'direct');
  const nameOf = ({ name }: Competitor): string => name;
  await bench.interleave(rows, proxies, nameOf, (row, competitor) =>
    row === startRow ? measureStart(bench, competitor) : measureIdle(bench, competitor),
  );
}

async function measureStart(bench: Bench, competitor: Competitor): Promise<Figures> {
  const begun = Number(process.hrtime.bigint() / 1000n);
  const launched = await bench.launch(competitor, { daemon: bench.daemon });
  const answered = await bench.firstAnswer(launched);
  await launched.stop();
  return { time: (answered - begun) / 1000 };
}

async function measureIdle(bench: Bench, competitor: Competitor): Promise<Figures> {
  const subject = await bench.start(competitor, { daemon: bench.daemon });
  const { generator } = bench.programs;
  const { socket } = subject;
  const empty = await settledMemory(subject);
  const few = await openIdleClients(generator, { socket, clients: fewClients });
  const withFew = await settledMemory(subject);
  const more = await openIdleClients(generator, { socket, clients: manyClients - fewClients });
  const withMany = await settledMemory(subject);
  await few.close();
  await more.close();
  await subject.stop();
  return {
    empty: empty / 1024 ** 2,
    few: (withFew - empty) / 1024 / fewClients,
    many: (withMany - empty) / 1024 / manyClients,
  };
}

/**
 * Memory once it has changed by less than 1 % in three seconds, or after fifteen: the proxy lets go
 * of what only its start has needed two seconds after it.
 */
async function settledMemory(subject: Subject): Promise<number> {
  const history: number[] = [];
  for (let look = 0; look < 60; look++) {
    const now = memoryBytes(subject.pids());
    history.push(now);
    const last = history.slice(-13);
    if (last.length === 13 && Math.max(...last) - Math.min(...last) < now / 100) break;
    await delay(settlePollMs);
  }
  return history.at(-1)!;
}
