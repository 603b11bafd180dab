import { setTimeout as delay } from 'node:timers/promises';
import type { WorkerLoad } from '../../control/messages.js';
import type { WorkerProcess } from './worker-process.js';

/** Milliseconds within which a worker says what it does; one that is slower counts as busy. */
const patience = 100;

/** What workers do at the moment; those that do not answer in time are missing. */
export async function loadsOf(
  workers: readonly WorkerProcess[],
): Promise<ReadonlyMap<WorkerProcess, WorkerLoad>> {
  const loads = new Map<WorkerProcess, WorkerLoad>();
  const answers = workers.map(async (worker) => {
    loads.set(worker, await worker.load());
  });
  await Promise.race([Promise.all(answers), delay(patience, undefined, { ref: false })]);
  return loads;
}
