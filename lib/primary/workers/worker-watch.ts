import type { Logger } from '../../logging/logger.js';
import type { WorkerPool } from './worker-pool.js';
import type { WorkerProcess } from './worker-process.js';

/**
 * Milliseconds between heartbeats, whose answers say how busy workers are, and of silence after
 * which a worker's event loop counts as stuck.
 */
const heartbeatInterval = 1000;
const heartbeatPatience = 15_000;

/** Milliseconds between measurements of what the workers use. */
const usageInterval = 5000;

/**
 * Milliseconds that pidusage keeps a process's file open and its last figures, from which the next
 * are reckoned.
 */
const usageMemory = 2 * usageInterval;

/** When it is needed first, so as not to hold up the start. */
const loadPidusage = async () => (await import('pidusage')).default;

/** Watches over the workers' health: replaces those that hang, have grown too large or are worn. */
export class WorkerWatch {
  private readonly heartbeat: NodeJS.Timeout;
  private readonly usage: NodeJS.Timeout;
  private pidusage: ReturnType<typeof loadPidusage> | null = null;
  /** Workers that are too large and were complained of. */
  private readonly tooLarge = new WeakSet<WorkerProcess>();

  /** `maxMemory` gives the limit in bytes, 0 for none; asked anew each time. */
  constructor(
    private readonly pool: WorkerPool,
    private readonly maxMemory: () => number,
    private readonly log: Logger,
  ) {
    this.heartbeat = setInterval(() => this.beat(), heartbeatInterval);
    this.usage = setInterval(() => void this.measure(), usageInterval);
    this.heartbeat.unref();
    this.usage.unref();
  }

  stop(): void {
    clearInterval(this.heartbeat);
    clearInterval(this.usage);
    void this.pidusage?.then((pidusage) => pidusage.clear());
  }

  /**
   * A worker can soon log in nobody: it is replaced however many drain already. Each of those has
   * clients, so that there are never more of them than max_clients; drain_timeout limits their
   * time.
   */
  onWorn(worker: WorkerProcess, state: string): void {
    if (worker.state !== 'ready') return;
    this.pool.retire(worker, 'sasl');
    this.log.warning(`worker ${worker.pid} has ${state} by SASL logins: it drains and is replaced`);
  }

  private beat(): void {
    for (const worker of this.pool.all) {
      if (!worker.isWorking) continue;
      const { silence } = worker;
      if (silence > heartbeatPatience) {
        const seconds = Math.round(silence / 1000);
        this.log.error(`worker ${worker.pid} has not answered for ${seconds} s: killing it`);
        worker.killHung();
      } else {
        worker.send({ kind: 'heartbeat' });
      }
    }
  }

  private async measure(): Promise<void> {
    const working = [...this.pool.all].filter(({ isWorking }) => isWorking);
    await Promise.all(working.map((worker) => this.measureOne(worker)));
  }

  private async measureOne(worker: WorkerProcess): Promise<void> {
    try {
      const pidusage = await (this.pidusage ??= loadPidusage());
      const { memory } = await pidusage(worker.pid, { maxage: usageMemory });
      const limit = this.maxMemory();
      if (limit === 0 || memory <= limit || worker.state !== 'ready') return;
      this.tooMuch(
        worker,
        `worker ${worker.pid} has ${memory} bytes, more than max_worker_memory (${limit})`,
      );
    } catch (error) {
      // It ended in the meantime, which others notice.
      this.log.debug(`cannot measure worker ${worker.pid}: ${String(error)}`);
    }
  }

  /**
   * Retires a worker, unless so many drain already that another would only add to the memory in
   * use.
   */
  private tooMuch(worker: WorkerProcess, what: string): void {
    if (!this.pool.isFullOfDraining) {
      this.pool.retire(worker, 'memory');
      this.log.warning(`${what}: it drains and is replaced`);
    } else if (!this.tooLarge.has(worker)) {
      this.tooLarge.add(worker);
      this.log.error(
        `${what}, but those replaced before still serve clients: raise the limit, or set drain_timeout`,
      );
    }
  }
}
