import { mkdirSync } from 'node:fs';
import type { Configuration } from '../config/configuration.js';
import { logLevelOf, Logger, type LogSink } from '../logging/logger.js';
import { raiseOpenFilesLimit } from '../native/descriptors.js';
import { Listener } from './listener.js';
import { plannedPaths } from './listener-plan.js';
import { PidFile } from './pid-file.js';
import { Reception } from './reception.js';
import { WorkerPool } from './worker-pool.js';

/** What the command line says beside the configuration. */
export interface PrimaryOptions {
  readonly configuration: Configuration;
  readonly pidFile: string;
  /** Seconds without clients after which the daemon ends; 0: never. */
  readonly timeoutSeconds: number;
  readonly verbose: boolean;
}

/** The primary process: owns the PID file, the listening sockets, the limits and the workers. */
export class Primary {
  private readonly log: Logger;
  private readonly pool: WorkerPool;
  private readonly reception: Reception;
  private listeners: Listener[] = [];
  private pidFile: PidFile | null = null;
  private idleTimer: NodeJS.Timeout | null = null;
  private stopping: Promise<void> | null = null;

  constructor(
    private readonly options: PrimaryOptions,
    sink: LogSink,
  ) {
    const { configuration, verbose } = options;
    const { conf } = configuration;
    const logLevel = verbose && conf.log_level > 2 ? 'info' : logLevelOf(conf.log_level);
    this.log = new Logger('primary', { level: logLevel }, sink);
    this.pool = new WorkerPool(
      { configuration, logLevel },
      {
        ready: () => this.serve(),
        message: (worker, message) => {
          if (message.kind === 'log') sink(message.record);
          else this.reception.told(worker, message);
        },
        lost: (worker) => this.reception.lost(worker),
      },
      this.log.for('pool'),
    );
    this.reception = new Reception(
      { maxClients: conf.max_clients, maxAnonymous: conf.max_anonymous_clients },
      () => this.pool,
      this.log.for('reception'),
      () => this.watchIdleness(),
    );
  }

  /** Resolves when the first worker serves. Throws PidFileError or ListenError; nothing is left behind then. */
  async start(): Promise<void> {
    const { configuration, pidFile } = this.options;
    const { mode, paths, cluster, warnings } = configuration;
    for (const warning of warnings) this.log.warning(warning);
    raiseOpenFilesLimit();
    mkdirSync(paths.runDirectory, { recursive: true, mode: mode === 'system' ? 0o755 : 0o700 });
    this.pidFile = PidFile.acquire(pidFile);
    try {
      for (const { settings, file } of plannedPaths(configuration)) {
        this.listeners.push(await Listener.onPath(settings, file));
      }
      const ready = new Promise<void>((resolve) => {
        this.onFirstReady = resolve;
      });
      await this.pool.start(cluster.workers);
      await ready;
    } catch (error) {
      this.removeFiles();
      throw error;
    }
    this.watchIdleness();
    this.log.info(`serving on ${this.listeners.map(({ settings }) => settings.name).join(', ')}`);
  }

  /** Stops accepting, lets pending replies out for a bounded time, ends workers, removes sockets and PID file. */
  stop(reason: string): Promise<void> {
    this.stopping ??= this.end(reason);
    return this.stopping;
  }

  /** Ends without waiting for anybody. */
  abandon(): void {
    this.pool.killAll();
    this.removeFiles();
  }

  private async end(reason: string): Promise<void> {
    this.log.info(`stopping: ${reason}`);
    if (this.idleTimer !== null) clearTimeout(this.idleTimer);
    for (const listener of this.listeners) listener.pause();
    this.reception.close();
    await this.pool.stop(this.options.configuration.cluster.stop_timeout);
    this.removeFiles();
  }

  private onFirstReady: () => void = () => undefined;

  /** A worker is ready: from the first one on connections are accepted. */
  private serve(): void {
    this.onFirstReady();
    if (this.stopping !== null) return;
    for (const listener of this.listeners) {
      listener.accept(
        (from, socket) => this.reception.connected(from, socket),
        (error) => this.log.error(`${listener.settings.name}: ${error.message}`),
      );
    }
    this.reception.serveWaiting();
  }

  /** (Re)starts the clock of --timeout whenever the last client has gone. */
  private watchIdleness(): void {
    const { timeoutSeconds } = this.options;
    if (this.idleTimer !== null) clearTimeout(this.idleTimer);
    this.idleTimer = null;
    if (timeoutSeconds === 0 || this.reception.size > 0 || this.stopping !== null) return;
    this.idleTimer = setTimeout(() => {
      void this.stop(`no clients for ${timeoutSeconds} seconds`).then(() => process.exit(0));
    }, timeoutSeconds * 1000);
  }

  private removeFiles(): void {
    for (const listener of this.listeners.splice(0)) listener.close();
    this.pidFile?.release();
    this.pidFile = null;
  }
}
