import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import { fileURLToPath } from 'node:url';
import throng from 'throng';
import { openSslConfiguration } from '../../auth/session-tickets.js';
import { workerStdio } from './worker-process.js';

/** Who is told of processes that come and go. */
export interface ForkEvents {
  /** There is a new one. */
  onFork(process: ClusterWorker): void;
  /** One has left the cluster, to drain or because it died. */
  onDisconnect(process: ClusterWorker): void;
}

/** Where worker processes come from. */
export interface Forks {
  /** Forks `count` processes, and tells of them and of those to come. */
  start(count: number, events: ForkEvents): Promise<void>;
  /** Forks one more. */
  fork(): ClusterWorker;
  /** Forks one in place of one that has left the cluster, unless stopped. */
  replace(): void;
  /** Replaces no more. */
  stop(): void;
}

/**
 * The signal by which throng is told to fork no more: emitted here, not sent. throng passes it on
 * to the workers, where this one does nothing, since how workers end is said over their control
 * channels.
 */
const stopSignal = 'SIGURG';

/** A day: throng's own end of patience must never come, since the primary bounds a stop itself. */
const throngGrace = 86_400_000;

/** Processes of Node.js's cluster, which throng forks. */
export class ThrongForks implements Forks {
  /** throng's: forks another. */
  private revive: (() => void) | null = null;

  async start(count: number, events: ForkEvents): Promise<void> {
    cluster.setupPrimary({
      exec: fileURLToPath(new URL('../../worker/main.js', import.meta.url)),
      args: [],
      execArgv: [...process.execArgv, `--openssl-config=${openSslConfiguration}`],
      stdio: [...workerStdio],
    });
    cluster.on('fork', (process) => events.onFork(process));
    const before = cluster.listeners('disconnect');
    const running = throng({
      count,
      lifetime: Infinity,
      grace: throngGrace,
      signals: [stopSignal],
      // Workers run a program of their own.
      worker: () => undefined,
    });
    // throng's listener forks at once whatever the reason; here `replace` is when it is called.
    const [revive] = cluster
      .listeners('disconnect')
      .filter((listener) => !before.includes(listener)) as (() => void)[];
    if (revive === undefined) throw new Error('throng does not listen for workers that leave');
    cluster.off('disconnect', revive);
    this.revive = revive;
    cluster.on('disconnect', (process) => events.onDisconnect(process));
    await running;
  }

  fork(): ClusterWorker {
    return cluster.fork();
  }

  replace(): void {
    this.revive?.();
  }

  stop(): void {
    process.emit(stopSignal, stopSignal);
  }
}
