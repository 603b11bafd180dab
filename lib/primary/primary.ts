import { setTimeout as pause } from 'node:timers/promises';
import { AdminServer } from '../admin/admin-server.js';
import type { Configuration } from '../config/configuration.js';
import { homelessness } from '../config/paths.js';
import type { WorkerMessage } from '../control/messages.js';
import type { LogControl, PreparedLogging } from '../logging/log-control.js';
import { Logger } from '../logging/logger.js';
import type { MetricsService } from '../metrics/metrics-service.js';
import { SocketStream } from '../transport/socket-stream.js';
import { Administration, adminSettingsOf, type AdministeredParts } from './administration.js';
import { DescriptorReserve, raiseLimitFor } from './clients/descriptor-reserve.js';
import { IdleClock } from './host/idle-clock.js';
import { runHooks, type HookEvent } from './host/hooks.js';
import { closedToGroups, planListeners, underActivation } from './listeners/listener-plan.js';
import type { Connection, Listener } from './listeners/listener.js';
import { ListenerSet } from './listeners/listener-set.js';
import { localPeer } from './clients/local-peer.js';
import { Observation } from './observation.js';
import { PidFile } from './host/pid-file.js';
import { checkPrerequisites } from './host/prerequisites.js';
import type { PrimaryOptions } from './primary-options.js';
import { clientLimits, Reception } from './clients/reception.js';
import { makeRunDirectory } from './host/run-directory.js';
import type { ServiceManager } from './host/service-manager.js';
import { Successor, type Inheritance } from './host/succession.js';
import { WorkerPool } from './workers/worker-pool.js';
import type { WorkerProcess } from './workers/worker-process.js';
import { WorkerWatch } from './workers/worker-watch.js';

/** Generations that may drain at a time, beside the one that serves. */
const maxDraining = 2;

/** Milliseconds between reports to the service manager. */
const statusInterval = 10_000;

/** Seconds that the administrator's hooks may take, each. */
const hookTimeoutSeconds = 30;

/** Milliseconds between looks whether a reload or an upgrade that waits may go on. */
const waitInterval = 100;

/** The primary process: owns the PID file, the listening sockets, the limits and the workers. */
export class Primary {
  private readonly log: Logger;
  private readonly pool: WorkerPool;
  private readonly watch: WorkerWatch;
  private readonly reception: Reception;
  private readonly reserve: DescriptorReserve;
  private readonly admin: AdminServer;
  private readonly observation: Observation;
  /** Null until metrics are wanted. */
  private metrics: MetricsService | null = null;
  private readonly listeners: ListenerSet;
  private pidFile: PidFile | null = null;
  private readonly idleClock: IdleClock;
  private stopping: Promise<void> | null = null;
  private reloading: Promise<void> | null = null;
  private reloadAgain = false;
  private started = false;
  /** What became of the last reload, for the service manager. */
  private news = 'not reloaded yet';
  /** Set while a successor comes up and takes over; aborting it ends a successor that is not ready. */
  private upgrading: AbortController | null = null;
  /** The process that has taken over. */
  private successor: number | null = null;

  constructor(
    private readonly options: PrimaryOptions,
    private configuration: Configuration,
    private readonly serviceManager: ServiceManager,
    /** What the admin socket may change of the log, too. */
    readonly logging: LogControl,
  ) {
    this.log = new Logger('daemon.primary', logging.threshold, logging.sink);
    this.pool = new WorkerPool(
      {
        ready: () => this.serve(),
        message: (worker, message) => this.told(worker, message),
        lost: (worker) => this.reception.lost(worker),
      },
      this.log.for('daemon.pool'),
    );
    logging.onChange = (settings) => this.pool.setLogging(settings);
    this.watch = new WorkerWatch(
      this.pool,
      () => this.configuration.cluster.max_worker_memory,
      this.log.for('daemon.pool'),
    );
    this.reception = new Reception(
      clientLimits(configuration),
      (introduction, handle) => this.pool.hand(introduction, handle),
      this.log.for('rpc.reception'),
      () => this.idleClock.look(),
    );
    this.reserve = new DescriptorReserve(
      {
        queueLength: () => this.reception.queue.length,
        rest: () => this.listeners.pauseClients(),
        resume: () => this.serve(),
      },
      this.log,
    );
    this.admin = new AdminServer(
      adminSettingsOf(configuration),
      new Administration(this.administeredParts()),
      this.log.for('daemon.admin'),
      () => this.idleClock.look(),
    );
    this.observation = new Observation({
      version: options.release,
      configuration: () => this.configuration,
      isServing: () => this.isServing,
      reception: this.reception,
      pool: this.pool,
      logging,
    });
    this.idleClock = new IdleClock(
      options.timeoutSeconds,
      () => this.reception.size + this.admin.size === 0,
      (seconds) => this.endIfIdle(seconds),
    );
    this.listeners = new ListenerSet(
      {
        connected: (listener, connection) => this.connected(listener, connection),
        failed: (listener, error) => {
          const { name } = listener.settings;
          this.log.error(
            `cannot accept on ${name}: ${error.message}; ` +
              'if there are too many open files, raise the limit (LimitNOFILE=, ulimit -n)',
          );
        },
      },
      this.log.for('rpc.listener'),
    );
  }

  /** Resolves when the first worker serves. On an error nothing is left behind. */
  async start(inheritance: Inheritance | null): Promise<void> {
    const { options } = this;
    this.listeners.takeOver(inheritance?.listeners ?? [], options.activated, this.configuration);
    this.configuration = underActivation(this.configuration, this.listeners.activated);
    const { configuration } = this;
    const { paths, cluster, warnings, conf } = configuration;
    for (const warning of warnings) this.log.warning(warning);
    const closed = closedToGroups(configuration, this.listeners.activated);
    if (closed !== null) this.log.warning(closed);
    raiseLimitFor(conf.max_clients, this.log);
    makeRunDirectory(configuration);
    const pidFile = options.pidFile ?? paths.pidFile;
    // A predecessor holds it until this one is ready.
    if (inheritance === null) this.pidFile = PidFile.acquire(pidFile, homelessness(paths, pidFile));
    try {
      this.observation.certificates = await checkPrerequisites(configuration, this.log);
      const setup = { configuration, logging: this.logging.forWorkers };
      this.metrics = await this.metricsFor(configuration);
      await this.listeners.prepare(await planListeners(configuration, this.listeners.activated));
      await this.pool.start(setup, cluster.workers);
      if (inheritance === null) await this.runHooks('start');
      if (inheritance !== null) {
        await inheritance.ready();
        this.pidFile = PidFile.acquire(pidFile);
      }
      if (this.stopping !== null) {
        await this.stopping;
        return;
      }
      this.listeners.share(false);
      this.listeners.commit();
      this.started = true;
      this.metrics?.turn(true);
      this.serve();
    } catch (error) {
      this.pool.killAll();
      this.removeFiles();
      throw error;
    }
    this.idleClock.look();
    this.log.info(`serving on ${this.listeners.names.join(', ')}`);
    this.serviceManager.ready();
    this.serviceManager.startWatchdog(() => true);
    this.startReporting();
    if (this.reloadAgain) void this.reload();
  }

  /**
   * Takes a new configuration: reads and checks everything, opens what is new, brings up a worker of the new generation,
   * and only then changes over. On any error all stays as it was. Reloads asked for meanwhile become one more, as do those
   * asked for before the daemon serves or while an upgrade is under way.
   */
  reload(): Promise<void> {
    if (this.successor !== null) {
      this.log.warning(`reload ignored: process ${this.successor} has taken over`);
      return Promise.resolve();
    }
    if (this.reloading !== null || this.upgrading !== null || !this.started) {
      this.reloadAgain = true;
      return this.reloading ?? Promise.resolve();
    }
    this.reloading = this.reloadAll().finally(() => {
      this.reloading = null;
    });
    return this.reloading;
  }

  /**
   * Starts the program's new version on the same sockets. Once that is ready this one takes no more connections, lets its
   * clients finish, and ends; resolves then with true. If the new one does not come up all stays as it was: false.
   */
  async upgrade(): Promise<boolean> {
    if (this.upgrading !== null || this.stopping !== null || !this.started) return false;
    const upgrading = new AbortController();
    this.upgrading = upgrading;
    try {
      await this.reloading;
      const successor = await this.startSuccessor(upgrading.signal);
      await this.giveWayTo(successor);
      return true;
    } catch (error) {
      this.upgrading = null;
      if (this.isStopping) return false;
      const reason = error instanceof Error ? error.message : String(error);
      this.log.error(`upgrade failed, this version goes on: ${reason}`);
      if (this.wantsReload) void this.reload();
      return false;
    }
  }

  /** Stops listening, lets pending replies out for a bounded time, ends workers, removes sockets and PID file. */
  stop(reason: string): Promise<void> {
    this.stopping ??= this.end(reason);
    return this.stopping;
  }

  /** Ends without waiting for anybody. */
  abandon(): void {
    this.pool.killAll();
    this.removeFiles();
  }

  private async reloadAll(): Promise<void> {
    this.reloadAgain = false;
    try {
      if (!(await this.oldGenerationsGone())) {
        this.reloadAgain = true;
        return;
      }
      this.serviceManager.reloading();
      await this.runHooks('reload');
      if (this.isStopping) return;
      await this.reloadOnce();
      this.observation.reloaded('success');
      this.log.info(`reloaded: generation ${this.pool.currentGeneration} serves`);
      this.serviceManager.reloaded(this.status('the last reload succeeded'));
    } catch (error) {
      this.observation.reloaded('failure');
      const reason = error instanceof Error ? error.message : String(error);
      for (const line of reason.split('\n')) {
        this.log.error(`reload failed, the old configuration stays in force: ${line}`);
      }
      this.serviceManager.reloaded(this.status(`the last reload failed: ${reason}`));
    }
    if (this.wantsReload) await this.reloadAll();
  }

  private get isServing(): boolean {
    return this.started && this.stopping === null && this.successor === null;
  }

  private get isStopping(): boolean {
    return this.stopping !== null;
  }

  private get wantsReload(): boolean {
    return this.reloadAgain && this.upgrading === null && this.stopping === null;
  }

  private async reloadOnce(): Promise<void> {
    const configuration = underActivation(
      this.options.readConfiguration(),
      this.listeners.activated,
    );
    const logChange = this.logging.prepare(configuration);
    try {
      await this.changeTo(configuration, logChange);
    } catch (error) {
      logChange.abandon();
      throw error;
    }
  }

  /** On an error nothing but the log's change is left to undo. */
  private async changeTo(configuration: Configuration, logChange: PreparedLogging): Promise<void> {
    const certificates = await checkPrerequisites(configuration, this.log);
    const setup = { configuration, logging: logChange.forWorkers };
    const metrics = await this.metricsFor(configuration);
    makeRunDirectory(configuration);
    await this.listeners.prepare(await planListeners(configuration, this.listeners.activated));
    let first: WorkerProcess;
    try {
      first = await this.pool.prepare(setup);
    } catch (error) {
      this.listeners.abandon();
      throw error;
    }
    this.configuration = configuration;
    logChange.commit();
    for (const warning of configuration.warnings) this.log.warning(warning);
    this.observation.certificates = certificates;
    this.metrics = metrics;
    metrics?.turn(configuration.metrics.listen !== null);
    this.reception.limits = clientLimits(configuration);
    this.admin.configure(adminSettingsOf(configuration));
    this.pool.renew(first, setup, configuration.cluster.workers);
    this.listeners.commit();
    this.serve();
  }

  /**
   * A generation drains until its clients have left: that is up to them, so a reload may have to wait. False: it has become
   * needless.
   */
  private async oldGenerationsGone(): Promise<boolean> {
    if (this.pool.drainingGenerations < maxDraining) return true;
    this.log.warning(
      `reload waits: ${maxDraining} older generations still serve clients; set drain_timeout to limit their time`,
    );
    while (this.pool.drainingGenerations >= maxDraining) {
      await pause(waitInterval);
      if (this.stopping !== null || this.upgrading !== null) return false;
    }
    return true;
  }

  private runHooks(event: HookEvent): Promise<void> {
    return runHooks(event, {
      file: this.configuration.paths.hookFile,
      env: process.env,
      timeoutSeconds: hookTimeoutSeconds,
      log: this.log.for('daemon.hook'),
    });
  }

  /** For `systemctl status`. */
  private status(news: string): string {
    this.news = news;
    return `${this.reception.clients.size} clients, ${this.pool.live.length} workers; ${news}`;
  }

  /** Tells the service manager how things stand, now and from time to time. */
  private startReporting(): void {
    const report = (): void => this.serviceManager.status(this.status(this.news));
    report();
    setInterval(report, statusInterval).unref();
  }

  /** Leaves sockets, PID file and new clients to a successor that is ready, and lets the clients there are finish. */
  private async giveWayTo(successor: Successor): Promise<void> {
    this.successor = successor.pid;
    this.log.info(
      `process ${successor.pid} takes over; this one serves its clients until they leave`,
    );
    this.idleClock.stop();
    this.listeners.share(true);
    this.listeners.close();
    this.pidFile?.handOver();
    this.pidFile = null;
    this.serviceManager.mainPid(successor.pid);
    this.serviceManager.stop();
    successor.go();
    // It was meant for whoever serves.
    if (this.reloadAgain) successor.reload();
    await this.reception.serveAll();
    await this.pool.drainAll();
    this.watch.stop();
  }

  private startSuccessor(signal: AbortSignal): Promise<Successor> {
    const { directory, daemon } = this.options;
    return Successor.start({
      listeners: [...this.listeners.all].map(({ settings, fd, path }) => ({ settings, fd, path })),
      directory,
      env: { ...process.env, ...this.serviceManager.environment },
      complaint: daemon ? (line) => this.log.error(`new version: ${line}`) : null,
      signal,
    });
  }

  /** Its program is loaded only where it is needed. */
  private async metricsFor({ metrics }: Configuration): Promise<MetricsService | null> {
    if (this.metrics !== null || metrics.listen === null) return this.metrics;
    const { MetricsService } = await import('../metrics/metrics-service.js');
    return new MetricsService(this.observation, this.log.for('daemon.metrics'));
  }

  private administeredParts(): AdministeredParts {
    return {
      version: this.options.release,
      configuration: () => this.configuration,
      reception: this.reception,
      pool: this.pool,
      logging: this.logging,
      servesTls: () => [...this.listeners.all].some(({ settings }) => settings.transport === 'tls'),
      tlsUpdated: (expiry) => (this.observation.certificates = expiry),
      setIdleTimeout: (seconds) => this.idleClock.set(seconds),
      shutDown: () => void this.stopAndExit('an administrator asked for it'),
      log: this.log.for('daemon.admin'),
    };
  }

  private connected(listener: Listener, connection: Connection): void {
    this.reserve.used(connection.fd);
    const { role } = listener.settings;
    if (role === 'admin') this.administratorConnected(connection);
    else if (role !== 'metrics') this.reception.connected(listener, connection);
    else if (this.metrics === null) connection.close();
    else this.metrics.connected(connection);
  }

  private administratorConnected(connection: Connection): void {
    try {
      const peer = localPeer(connection.fd);
      this.admin.connected(SocketStream.accepted(connection), peer);
    } catch (error) {
      this.log.debug(`an administrator left before it could be identified: ${String(error)}`);
      connection.close();
    }
  }

  private told(worker: WorkerProcess, message: WorkerMessage): void {
    switch (message.kind) {
      case 'log':
        this.logging.sink(message.record);
        break;
      case 'audit':
        this.logging.audit(message.entries);
        break;
      case 'descriptors':
        worker.isFull = message.areScarce;
        if (message.areScarce) this.reserve.lackedByWorker();
        else this.reception.serveWaiting();
        break;
      case 'worn':
        this.watch.worn(worker, message.state);
        break;
      case 'report':
        this.observation.reported(worker, message);
        break;
      case 'ready':
      case 'alive':
      case 'load':
        break;
      default:
        this.reception.told(worker, message);
    }
  }

  /** A worker is ready: from the first one on connections are accepted. */
  private serve(): void {
    if (this.stopping !== null || !this.started) return;
    if (!this.reserve.isExhausted) this.listeners.accept();
    this.reception.serveWaiting();
  }

  private async end(reason: string): Promise<void> {
    this.listeners.close();
    this.log.info(`stopping: ${reason}`);
    this.serviceManager.stopping();
    this.idleClock.stop();
    this.watch.stop();
    if (this.successor === null) this.upgrading?.abort();
    this.reception.close();
    await this.pool.stop(this.configuration.cluster.stop_timeout);
    this.admin.close('the proxy is stopping');
    this.metrics?.close();
    if (this.successor === null) await this.runHooks('shutdown');
    this.serviceManager.stop();
    this.removeFiles();
  }

  /**
   * A client that connects at this very moment is served: the listeners close only when nobody waits to be accepted. While
   * that is looked at, in one go, nobody can connect to the UNIX sockets; for TCP microseconds remain.
   */
  private endIfIdle(seconds: number): void {
    this.listeners.hide();
    const isBusy = this.reloading !== null || this.upgrading !== null;
    const isWanted = this.reception.size + this.admin.size > 0 || this.listeners.isWaitedFor;
    if (isBusy || isWanted) {
      this.listeners.show();
      this.idleClock.look();
      return;
    }
    void this.stopAndExit(`no clients for ${seconds} seconds`);
  }

  private async stopAndExit(reason: string): Promise<void> {
    await this.stop(reason);
    process.exit(0);
  }

  private removeFiles(): void {
    this.listeners.close();
    this.pidFile?.release();
    this.pidFile = null;
  }
}
