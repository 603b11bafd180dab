/**
 * The room of the primary process: its states, and what it is put together from. It decides which
 * clients there may be and which worker has each, and does nothing for a client itself. What enters
 * concerns the daemon as a whole; no byte of a client is read here, nor of a daemon.
 */
import type { Configuration } from '../config/configuration.js';
import { homelessness } from '../config/paths.js';
import type { LogControl } from '../logging/log-control.js';
import { Logger } from '../logging/logger.js';
import { errorText } from '../error-text.js';
import { raiseLimitFor } from './clients/descriptor-reserve.js';
import { PidFile } from './host/pid-file.js';
import { makeRunDirectory } from './host/run-directory.js';
import type { ServiceManager } from './host/service-manager.js';
import type { Inheritance } from './host/succession.js';
import { Lifecycle, type LifecycleEffects, type PrimaryState } from './lifecycle.js';
import { closedToGroups, underActivation } from './listeners/listener-plan.js';
import { PrimaryParts } from './parts.js';
import { prepare } from './preparation.js';
import type { PrimaryOptions } from './primary-options.js';
import { Reload } from './reload.js';
import { Upgrade } from './upgrade.js';
import type { PoolEvents } from './workers/worker-pool.js';
import type { WorkerNews, WorkerProcess } from './workers/worker-process.js';

/** The primary process: owns the PID file, the listening sockets, the limits and the workers. */
export class Primary implements LifecycleEffects, PoolEvents {
  private readonly log: Logger;
  private readonly life: Lifecycle;
  private readonly parts: PrimaryParts;
  private readonly reloads: Reload;
  private readonly upgrades: Upgrade;
  private pidFile: PidFile | null = null;

  constructor(
    private readonly options: PrimaryOptions,
    configuration: Configuration,
    serviceManager: ServiceManager,
    logging: LogControl,
  ) {
    this.log = new Logger('daemon.primary', logging.threshold, logging.sink);
    this.life = new Lifecycle(this, this.log);
    this.parts = new PrimaryParts({
      options,
      configuration,
      serviceManager,
      logging,
      log: this.log,
      life: this.life,
      poolEvents: this,
    });
    this.reloads = new Reload(this.parts);
    this.upgrades = new Upgrade(this.parts);
  }

  /**
   * New clients are let in: it has started, and neither stops nor has handed over to a successor.
   */
  get isServing(): boolean {
    return this.life.isServing;
  }

  /**
   * Resolves when the first worker serves, or when the daemon is to end. On an error nothing is
   * left behind.
   */
  async start(inheritance: Inheritance | null): Promise<void> {
    const { parts, options } = this;
    const { entrance, pool } = parts;
    const { listeners } = entrance;
    listeners.takeOver(inheritance?.listeners ?? [], options.activated, parts.configuration);
    const configuration = underActivation(parts.configuration, listeners.activated);
    parts.configuration = configuration;
    this.warn(configuration);
    raiseLimitFor(configuration.conf.max_clients, this.log);
    makeRunDirectory(configuration);
    const { paths } = configuration;
    const pidFile = options.pidFile ?? paths.pidFile;
    // A predecessor holds it until this one is ready.
    if (inheritance === null) this.pidFile = PidFile.acquire(pidFile, homelessness(paths, pidFile));
    try {
      const { certificates, metrics, ...given } = await prepare(parts, configuration);
      parts.observation.certificates = certificates;
      entrance.metrics = metrics;
      const setup = { configuration, logging: parts.logging.forWorkers, ...given };
      await pool.start(setup);
      if (inheritance === null) await parts.runHooks('start');
      if (inheritance !== null) {
        await inheritance.ready();
        this.pidFile = PidFile.acquire(pidFile);
      }
      this.life.transition(['starting'], 'serving');
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  /**
   * Takes a new configuration. Reloads asked for meanwhile become one more, as do those asked for
   * before the daemon serves or while an upgrade is under way.
   */
  reload(): void {
    if (this.life.state === 'handedOver') {
      this.log.warning(`reload ignored: process ${this.upgrades.successorPid} has taken over`);
      return;
    }
    this.reloads.isDue = true;
    this.life.transition(['serving'], 'reloading');
  }

  /**
   * Starts the program's new version on the same sockets. Once that is ready this one takes no more
   * connections, lets its clients finish, and ends. If the new one does not come up all stays as it
   * was.
   */
  upgrade(): void {
    this.life.transition(['serving', 'reloading'], 'upgrading');
  }

  /**
   * Stops listening, lets pending replies out for a bounded time, ends workers, removes sockets and
   * PID file, and exits.
   */
  stop(reason: string): void {
    this.life.stop(reason);
  }

  /** Ends without waiting for anybody. */
  abandon(): void {
    this.parts.pool.killAll();
    this.removeFiles();
  }

  onState(state: PrimaryState, from: PrimaryState, reason: string): void {
    switch (state) {
      case 'starting':
        break;
      case 'serving':
        if (from === 'starting') this.begin();
        if (from === 'upgrading') this.log.error(`upgrade failed, this version goes on: ${reason}`);
        if (this.reloads.isDue) this.life.transition(['serving'], 'reloading');
        break;
      case 'reloading':
        void this.reloads.run().then(() => this.life.transition(['reloading'], 'serving'));
        break;
      case 'upgrading':
        void this.startSuccessor();
        break;
      case 'handedOver':
        void this.handOver();
        break;
      case 'stopping':
        void this.end(from, reason);
        break;
    }
  }

  /** From the first worker on connections are accepted. */
  onWorkerReady(): void {
    this.parts.entrance.serve();
    this.parts.scaling.review();
  }

  onWorkerNews(worker: WorkerProcess, news: WorkerNews): void {
    const { logging, entrance, watch, observation, reception } = this.parts;
    switch (news.kind) {
      case 'log':
        logging.sink(news.record);
        break;
      case 'audit':
        logging.audit(news.entries);
        break;
      case 'descriptors':
        entrance.onWorkerDescriptors(news.areScarce);
        break;
      case 'worn':
        watch.onWorn(worker, news.state);
        break;
      case 'connect':
        this.parts.broker.onConnect(worker, news);
        break;
      case 'look':
        void this.parts.broker.onLook(worker, news);
        break;
      case 'askPolkit':
        void this.parts.polkit.ask(worker, news.id);
        break;
      case 'report':
        observation.onReport(worker, news);
        break;
      default:
        reception.onWorkerNews(worker, news);
    }
  }

  onWorkerLost(worker: WorkerProcess): void {
    this.parts.broker.onWorkerLost(worker);
    this.parts.reception.onWorkerLost(worker);
  }

  private warn(configuration: Configuration): void {
    for (const warning of configuration.warnings) this.log.warning(warning);
    const closed = closedToGroups(configuration, this.parts.entrance.listeners.activated);
    if (closed !== null) this.log.warning(closed);
  }

  private begin(): void {
    const { admin, entrance, idleClock, reception, serviceManager, status } = this.parts;
    entrance.metrics?.turn(true);
    entrance.open();
    idleClock.start({
      isIdle: () => reception.size + admin.size === 0,
      onIdle: (seconds) => this.endIfIdle(seconds),
    });
    this.log.info(`serving on ${entrance.listeners.names.join(', ')}`);
    serviceManager.ready();
    serviceManager.startWatchdog(() => true);
    status.start();
  }

  private async startSuccessor(): Promise<void> {
    // What it loads is in the middle of a change.
    await this.reloads.end;
    if (this.life.state !== 'upgrading') return;
    try {
      await this.upgrades.start();
      this.life.transition(['upgrading'], 'handedOver');
    } catch (error) {
      const reason = errorText(error);
      this.life.transition(['upgrading'], 'serving', reason);
    }
  }

  /** Lets the clients there are finish, and ends. */
  private async handOver(): Promise<void> {
    const { idleClock, pool, reception, scaling, watch } = this.parts;
    this.log.info(
      `process ${this.upgrades.successorPid} takes over; this one serves its clients until they leave`,
    );
    idleClock.stop();
    this.pidFile?.handOver();
    this.pidFile = null;
    this.upgrades.handOver(this.reloads.isDue);
    await reception.serveAll();
    scaling.stop();
    await pool.drainAll();
    watch.stop();
    if (this.life.state === 'handedOver') process.exit(0);
  }

  private async end(from: PrimaryState, reason: string): Promise<void> {
    const { admin, configuration, entrance, idleClock, pool, reception, serviceManager } =
      this.parts;
    entrance.close();
    this.log.info(`stopping: ${reason}`);
    serviceManager.stopping();
    idleClock.stop();
    this.parts.watch.stop();
    this.parts.scaling.stop();
    if (from === 'upgrading') this.upgrades.abandon();
    reception.close();
    await pool.stop(configuration.cluster.stop_timeout);
    admin.close('the proxy is stopping');
    entrance.metrics?.close();
    if (from !== 'handedOver') await this.parts.runHooks('shutdown');
    serviceManager.stop();
    this.removeFiles();
    process.exit(0);
  }

  /**
   * A client that connects at this very moment is served: the listeners close only when nobody
   * waits to be accepted. While that is looked at, in one go, nobody can connect to the UNIX
   * sockets; for TCP microseconds remain.
   */
  private endIfIdle(seconds: number): void {
    const { admin, entrance, idleClock, reception } = this.parts;
    const { listeners } = entrance;
    listeners.hide();
    const isWanted = reception.size + admin.size > 0 || listeners.isWaitedFor;
    if (this.life.state === 'serving' && !isWanted) {
      this.life.stop(`no clients for ${seconds} seconds`);
      return;
    }
    listeners.show();
    idleClock.restart();
  }

  private removeFiles(): void {
    this.parts.entrance.close();
    this.pidFile?.release();
    this.pidFile = null;
  }
}
