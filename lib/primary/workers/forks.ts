import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import throng from 'throng';
import { openSslConfiguration } from '../../auth/session-tickets.js';
import { workerProgram } from '../../control/worker-program.js';
import { workerStdio } from '../../control/worker-stdio.js';
import type { WorkerUser } from '../../control/workers.js';
import { renounceNewPrivileges, spawnIds } from '../../native/privileges.js';

/** Who is told of processes that come and go. */
export interface ForkEvents {
  /** There is a new one. */
  onFork(process: ClusterWorker): void;
  /** One has left the cluster, to drain or because it died. */
  onDisconnect(process: ClusterWorker): void;
}

/** Where worker processes come from. They run as `user`; null is the primary's own. */
export interface Forks {
  /** Forks `count` processes, and tells of them and of those to come. */
  start(count: number, user: WorkerUser | null, events: ForkEvents): Promise<void>;
  /** Forks one more. */
  fork(user: WorkerUser | null): ClusterWorker;
  /** Forks one in place of one that has left the cluster, unless stopped. */
  replace(user: WorkerUser | null): void;
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

/**
 * Has processes forked from now on begin as `user`: libuv gives up all groups, group and user, and
 * with them all capabilities, before it executes the program. That they can gain none is inherited
 * from this process, since only what it had at the fork holds for all threads of the new one.
 */
function runAs(user: WorkerUser | null): void {
  if (user !== null) renounceNewPrivileges();
  cluster.setupPrimary(user === null ? ownIds : spawnIds(user));
}

/** Those of this process; the types do not know that undefined takes them back. */
const ownIds = { uid: undefined, gid: undefined } as unknown as { uid: number; gid: number };

/** Processes of Node.js's cluster, which throng forks. */
export class ThrongForks implements Forks {
  /** throng's: forks another. */
  private revive: (() => void) | null = null;

  async start(count: number, user: WorkerUser | null, events: ForkEvents): Promise<void> {
    cluster.setupPrimary({
      exec: workerProgram,
      args: [],
      execArgv: [...process.execArgv, `--openssl-config=${openSslConfiguration}`],
      stdio: [...workerStdio],
    });
    runAs(user);
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

  fork(user: WorkerUser | null): ClusterWorker {
    runAs(user);
    return cluster.fork();
  }

  replace(user: WorkerUser | null): void {
    runAs(user);
    this.revive?.();
  }

  stop(): void {
    process.emit(stopSignal, stopSignal);
  }
}
