import type { DaemonSocket, Facts } from './facts.js';
import { missingParts } from './readiness.js';

/** Something that deserves a look. */
export interface Warning {
  /** `error`: somebody is not served as they should be. */
  readonly level: 'error' | 'warning';
  readonly text: string;
}

const day = 86_400_000;

/** Milliseconds before the end of a certificate at which to begin to warn. */
const certificateNotice = 30 * day;

/** The share of max_clients from which on it is nearly reached. */
const nearlyFull = 0.9;

/** Seconds by which a worker's event loop may be late. */
const tolerableLag = 1;

/** What deserves a look at `now` (milliseconds since the epoch), the worst first. */
export function warningsOn(
  facts: Facts,
  sockets: readonly DaemonSocket[],
  now: number,
): readonly Warning[] {
  const errors = [...missingParts(facts, sockets), ...failedReload(facts)];
  const warnings = [
    ...nearLimits(facts),
    ...missingWorkers(facts),
    ...lateWorkers(facts),
    ...expiry(facts, now),
    ...drops(facts),
  ];
  return [
    ...errors.map((text) => ({ level: 'error', text }) as const),
    ...warnings.map((text) => ({ level: 'warning', text }) as const),
  ];
}

function failedReload({ lastReload }: Facts): string[] {
  return lastReload?.result === 'failure'
    ? ['The last reload failed: the old configuration stays in force. The log says why.']
    : [];
}

function nearLimits({ clients, maxClients }: Facts): string[] {
  const lines: string[] = [];
  const states = Object.values(clients);
  const waiting = states.reduce((sum, counts) => sum + counts.waiting, 0);
  const served = states.reduce((sum, { login, serving }) => sum + login + serving, 0);
  if (served >= nearlyFull * maxClients) {
    lines.push(`${served} of ${maxClients} clients are connected (max_clients).`);
  }
  if (waiting > 0) lines.push(`${waiting} clients wait for a worker or a place.`);
  return lines;
}

function missingWorkers({ workers, wantedWorkers, generation }: Facts): string[] {
  const ready = workers.filter(
    ({ state, generation: of }) => state === 'ready' && of === generation,
  );
  if (ready.length >= wantedWorkers || ready.length === 0) return [];
  return [`${ready.length} of ${wantedWorkers} workers are ready.`];
}

function lateWorkers({ workers }: Facts): string[] {
  return workers.flatMap(({ slot, gauges }) => {
    const lag = gauges?.lag ?? 0;
    return lag < tolerableLag
      ? []
      : [`Worker ${slot} stood still for ${lag.toFixed(1)} s within the last minute.`];
  });
}

function expiry({ certificates }: Facts, now: number): string[] {
  if (certificates === null) return [];
  return (['server', 'ca'] as const).flatMap((kind) => {
    const left = certificates[kind] - now;
    if (left > certificateNotice) return [];
    const what = kind === 'server' ? 'server certificate' : 'CA certificate';
    if (left <= 0) return [`The ${what} has expired.`];
    return [`The ${what} expires in ${Math.floor(left / day)} days.`];
  });
}

function drops({ droppedLines, totals }: Facts): string[] {
  const lines = droppedLines + totals.lostLines;
  return lines === 0 ? [] : [`${lines} lines of the log are lost: nothing took them.`];
}
