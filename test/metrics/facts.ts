import type { Facts, WorkerFacts } from '../../lib/metrics/facts.js';
import { WorkerGauges } from '../../lib/metrics/worker-gauges.js';
import { WorkerTotals } from '../../lib/metrics/worker-totals.js';

/** The time of all facts, in milliseconds since the epoch. */
export const now = Date.UTC(2026, 0, 1);
export const day = 86_400_000;

/** No clients of a transport. */
export const none = { waiting: 0, login: 0, serving: 0, readOnly: 0 };

export const workerAt = (slot: number, state: WorkerFacts['state'] = 'ready'): WorkerFacts => ({
  ...{ slot, pid: 100 + slot, generation: 1, state, clients: 1, gauges: new WorkerGauges() },
});

/** A daemon with two workers and four clients that has run for a day, but for some changes. */
export function factsWith(changes: Partial<Facts> = {}): Facts {
  return {
    version: '1.2.3',
    startedAt: now - day,
    primary: { pid: 99, cpuSeconds: 1, residentMemory: 2 },
    isServing: true,
    generation: 1,
    drainingGenerations: 0,
    wantedWorkers: 2,
    workers: [workerAt(0), workerAt(1)],
    clients: { unix: { ...none, serving: 3 }, tcp: none, tls: { ...none, login: 1 } },
    maxClients: 5000,
    accepted: { unix: 3, tcp: 0, tls: 1 },
    refused: { queue_full: 0, gave_way: 0, login: 0, tls: 0, login_timeout: 0 },
    restarts: { crash: 0, hang: 0, memory: 0, sasl: 0 },
    reloads: { success: 0, failure: 0 },
    lastReload: null,
    certificates: null,
    droppedLines: 0,
    totals: new WorkerTotals(),
    ...changes,
  };
}
