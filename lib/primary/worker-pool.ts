import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import { fileURLToPath } from 'node:url';
import throng from 'throng';
import type { Configuration } from '../config/configuration.js';
import type { ClientIntroduction, WorkerMessage } from '../control/messages.js';
import type { Logger, LogLevel } from '../logging/logger.js';
import type { SocketHandle } from '../transport/socket-stream.js';
import { CrashBackOff } from './crash-back-off.js';
import { WorkerProcess, workerStdio, type WorkerEvents } from './worker-process.js';

/** What the pool tells the primary. */
export interface PoolEvents {
  /** A worker can take clients. */
  ready(): void;
  message(worker: WorkerProcess, message: WorkerMessage): void;
  /** A worker is gone, and its clients with it. */
  lost(worker: WorkerProcess): void;
}

/** What workers are given to work with. */
export interface WorkerSetup {
  readonly configuration: Configuration;
  readonly logLevel: LogLevel;
}

/**
 * The signal by which throng is told to fork no more: emitted here, not sent. throng passes it on to the workers, where
 * this one does nothing, since how workers end is said over their control channels.
 */
const stopThrong = 'SIGURG';

/** A day: throng's own end of patience must never come, since the primary bounds a stop itself. */
const throngGrace = 86_400_000;

/**
 * The worker processes. throng forks as many as there should be and forks again whenever one leaves the cluster; a
 * forked worker does nothing before the pool sends it its configuration, which after crashes is done later and later.
 */
export class WorkerPool implements WorkerEvents {
  private readonly workers = new Set<WorkerProcess>();
  private readonly backOff = new CrashBackOff();
  /** Delays in seconds for the next workers that throng forks. */
  private readonly delays: number[] = [];
  private stopping = false;

  constructor(
    private readonly setup: WorkerSetup,
    private readonly events: PoolEvents,
    private readonly log: Logger,
  ) {}

  /** Forks `count` workers and keeps their number up. */
  async start(count: number): Promise<void> {
    cluster.setupPrimary({
      exec: fileURLToPath(new URL('../worker/main.js', import.meta.url)),
      args: [],
      stdio: [...workerStdio],
    });
    // Before throng's own listener, which forks the successor.
    cluster.on('disconnect', (worker) => this.left(worker));
    cluster.on('fork', (worker) => this.forked(worker));
    await throng({
      count,
      lifetime: Infinity,
      grace: throngGrace,
      signals: [stopThrong],
      // Workers run a program of their own.
      worker: () => undefined,
    });
  }

  /** Those that are alive, draining ones included. */
  get all(): ReadonlySet<WorkerProcess> {
    return this.workers;
  }

  /** Hands a client to the ready worker with the fewest; null when there is none. */
  hand(introduction: ClientIntroduction, handle: SocketHandle): WorkerProcess | null {
    let fewest: WorkerProcess | null = null;
    for (const worker of this.workers) {
      if (worker.state !== 'ready') continue;
      if (fewest === null || worker.clients < fewest.clients) fewest = worker;
    }
    fewest?.hand(introduction, handle);
    return fewest;
  }

  /** Ends all workers: `seconds` for pending replies, then one more for the rest, then by force. */
  async stop(seconds: number): Promise<void> {
    this.end();
    for (const worker of this.workers) worker.send({ kind: 'stop', seconds });
    const force = setTimeout(() => this.killAll(), (seconds + 1) * 1000);
    await new Promise<void>((resolve) => {
      this.onEmpty = resolve;
      if (this.workers.size === 0) resolve();
    });
    clearTimeout(force);
  }

  /** Ends all workers at once. */
  killAll(): void {
    this.end();
    for (const worker of this.workers) worker.kill();
  }

  message(worker: WorkerProcess, message: WorkerMessage): void {
    if (message.kind === 'ready') {
      if (worker.state !== 'starting') return;
      worker.state = 'ready';
      this.log.info(`worker ${worker.pid} is ready`);
      this.events.ready();
      return;
    }
    this.events.message(worker, message);
  }

  complaint(worker: WorkerProcess, line: string): void {
    this.log.error(`worker ${worker.pid}: ${line}`);
  }

  gone(worker: WorkerProcess, how: string): void {
    this.workers.delete(worker);
    this.log.info(`worker ${worker.pid} ${how}`);
    this.events.lost(worker);
    if (this.workers.size === 0) this.onEmpty();
  }

  private onEmpty: () => void = () => undefined;

  private end(): void {
    if (this.stopping) return;
    this.stopping = true;
    process.emit(stopThrong, stopThrong);
  }

  /** A worker left the cluster: to drain, or because it died. throng forks its successor right after this. */
  private left(process: ClusterWorker): void {
    const worker = [...this.workers].find(({ pid }) => pid === process.process.pid);
    if (this.stopping || worker?.state === 'draining') {
      this.delays.push(0);
      return;
    }
    const delay = this.backOff.crashed(performance.now() / 1000);
    this.delays.push(delay);
    const when = delay === 0 ? 'now' : `in ${delay} s`;
    this.log.error(`worker ${process.process.pid ?? 0} died: it is replaced ${when}`);
  }

  /** Every fork comes from throng: at the start, or to replace a worker that left. */
  private forked(process: ClusterWorker): void {
    const worker = new WorkerProcess(process, this);
    this.workers.add(worker);
    const delay = this.delays.shift() ?? 0;
    if (delay === 0) this.configure(worker);
    else setTimeout(() => this.configure(worker), delay * 1000).unref();
  }

  private configure(worker: WorkerProcess): void {
    if (worker.state !== 'spare' || this.stopping) return;
    worker.state = 'starting';
    worker.send({ kind: 'configure', ...this.setup });
  }
}
