import type { Worker as ClusterWorker } from 'node:cluster';
import type { WorkerProcess, WorkerState } from './worker-process.js';

/** The workers that are alive, and what is asked of them together. It changes none of them. */
export class WorkerSet {
  /** The one whose configuration is in force; that of a worker being prepared is the next. */
  generation = 0;
  private readonly workers = new Set<WorkerProcess>();

  /** Spare and draining ones included. */
  get all(): ReadonlySet<WorkerProcess> {
    return this.workers;
  }

  get isEmpty(): boolean {
    return this.workers.size === 0;
  }

  /** Those that serve new clients, or will. */
  get live(): WorkerProcess[] {
    return this.ofGeneration('ready', 'starting');
  }

  /** Those that serve new clients. */
  get ready(): WorkerProcess[] {
    return this.ofGeneration('ready');
  }

  /** Those that serve their last clients, older generations left out. */
  get draining(): WorkerProcess[] {
    return this.ofGeneration('draining');
  }

  /** Those that have no configuration yet. */
  get spares(): WorkerProcess[] {
    return [...this.workers].filter(({ state }) => state === 'spare');
  }

  /** Those of any generation that have not been told to drain. */
  get staying(): WorkerProcess[] {
    return [...this.workers].filter(({ state }) => state !== 'draining' && state !== 'gone');
  }

  /** How many workers there are once all spares have been configured. */
  get available(): number {
    return this.live.length + this.spares.length;
  }

  /** How many older generations still have workers that drain. */
  get drainingGenerations(): number {
    const numbers = [...this.workers]
      .filter(({ state, generation }) => state === 'draining' && generation < this.generation)
      .map(({ generation }) => generation);
    return new Set(numbers).size;
  }

  /** The lowest number that no living worker has. */
  get freeSlot(): number {
    const living = [...this.workers].filter(({ state }) => state !== 'gone');
    const taken = new Set(living.map(({ slot }) => slot));
    let slot = 0;
    while (taken.has(slot)) slot++;
    return slot;
  }

  add(worker: WorkerProcess): void {
    this.workers.add(worker);
  }

  delete(worker: WorkerProcess): void {
    this.workers.delete(worker);
  }

  /** The worker that is this process of the cluster module's. */
  find(process: ClusterWorker): WorkerProcess | undefined {
    return [...this.workers].find((worker) => worker.is(process));
  }

  /** Whether it was started for a configuration that is not in force yet. */
  isOfNextGeneration(worker: WorkerProcess): boolean {
    return worker.generation > this.generation;
  }

  /**
   * The ready worker with the fewest clients that may have another, if each may have `mostClients`;
   * null when there is none. One that does not answer, or has not even taken those it was handed
   * before, may hang: it comes last.
   */
  leastBusy(mostClients: number): WorkerProcess | null {
    let fewest: WorkerProcess | null = null;
    for (const worker of this.workers) {
      if (worker.state !== 'ready' || worker.generation !== this.generation) continue;
      if (worker.isFull || worker.clients >= mostClients) continue;
      if (fewest === null || worker.isLessBusyThan(fewest)) fewest = worker;
    }
    return fewest;
  }

  /** As many as are to go, if `count` are to stay: those with the fewest clients. */
  surplus(count: number): WorkerProcess[] {
    return this.live
      .toSorted((one, other) => one.clients - other.clients)
      .slice(0, Math.max(this.live.length - count, 0));
  }

  private ofGeneration(...states: WorkerState[]): WorkerProcess[] {
    return [...this.workers].filter(
      ({ state, generation }) => generation === this.generation && states.includes(state),
    );
  }
}
