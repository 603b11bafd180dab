import { AdminServer } from '../admin/admin-server.js';
import type { Configuration } from '../config/configuration.js';
import type { LogControl } from '../logging/log-control.js';
import type { Logger } from '../logging/logger.js';
import { Administration, adminSettingsOf } from './administration.js';
import { clientLimits } from './clients/client-limits.js';
import { PolkitQuestions } from './clients/polkit-questions.js';
import { Reception } from './clients/reception.js';
import { DaemonBroker } from './daemons/broker.js';
import { Entrance } from './entrance.js';
import { runHooks, type HookEvent } from './host/hooks.js';
import { IdleClock } from './host/idle-clock.js';
import type { ServiceManager } from './host/service-manager.js';
import { StatusReport } from './host/status-report.js';
import type { Lifecycle } from './lifecycle.js';
import { Observation } from './observation.js';
import type { PrimaryOptions } from './primary-options.js';
import { ThrongForks } from './workers/forks.js';
import { WorkerPool, type PoolEvents } from './workers/worker-pool.js';
import { WorkerScaling } from './workers/worker-scaling.js';
import { WorkerWatch } from './workers/worker-watch.js';

/** Seconds that the administrator's hooks may take, each. */
const hookTimeoutSeconds = 30;

/** What the parts are made from. */
export interface PartsOptions {
  readonly options: PrimaryOptions;
  readonly configuration: Configuration;
  readonly serviceManager: ServiceManager;
  readonly logging: LogControl;
  readonly log: Logger;
  readonly life: Lifecycle;
  readonly poolEvents: PoolEvents;
}

/** What the primary is made of. Each part knows only those made before it. */
export class PrimaryParts {
  readonly options: PrimaryOptions;
  readonly serviceManager: ServiceManager;
  readonly logging: LogControl;
  readonly log: Logger;
  readonly life: Lifecycle;
  /** The one in force. */
  configuration: Configuration;
  readonly idleClock: IdleClock;
  readonly pool: WorkerPool;
  readonly watch: WorkerWatch;
  readonly scaling: WorkerScaling;
  readonly reception: Reception;
  readonly polkit: PolkitQuestions;
  readonly broker: DaemonBroker;
  readonly observation: Observation;
  readonly admin: AdminServer;
  readonly entrance: Entrance;
  readonly status: StatusReport;

  constructor(given: PartsOptions) {
    const { options, configuration, serviceManager, logging, log, life, poolEvents } = given;
    this.options = options;
    this.configuration = configuration;
    this.serviceManager = serviceManager;
    this.logging = logging;
    this.log = log;
    this.life = life;
    const idleClock = new IdleClock(options.timeoutSeconds);
    const pool = new WorkerPool(new ThrongForks(), poolEvents, log.for('daemon.pool'));
    logging.onChange = (settings) => pool.setLogging(settings);
    const maxMemory = (): number => this.configuration.cluster.max_worker_memory;
    this.watch = new WorkerWatch(pool, maxMemory, log.for('daemon.pool'));
    const patience = (): number => this.configuration.cluster.worker_idle_timeout;
    const scaling = new WorkerScaling(pool, patience, log.for('daemon.pool'));
    const reception = new Reception(
      clientLimits(configuration),
      (introduction, handle) => {
        const worker = pool.hand(introduction, handle);
        scaling.review();
        return worker;
      },
      log.for('rpc.reception'),
      () => idleClock.restart(),
    );
    this.polkit = new PolkitQuestions(
      reception.clients,
      () => this.configuration.cluster.login_timeout * 1000,
      log.for('rpc.reception'),
    );
    this.broker = new DaemonBroker(reception.clients, this.polkit, log.for('remote.daemon'));
    const seen = { configuration: () => this.configuration, reception, pool, logging };
    this.observation = new Observation({
      ...seen,
      version: options.release,
      isServing: () => life.isServing,
    });
    const administration = new Administration({
      ...seen,
      version: options.release,
      onTlsUpdated: (expiry) => (this.observation.certificates = expiry),
      setIdleTimeout: (seconds) => idleClock.set(seconds),
      shutDown: () => life.stop('an administrator asked for it'),
      log: log.for('daemon.admin'),
    });
    this.admin = new AdminServer(
      adminSettingsOf(configuration),
      administration,
      log.for('daemon.admin'),
      () => idleClock.restart(),
    );
    this.entrance = new Entrance(reception, this.admin, log);
    this.status = new StatusReport(
      serviceManager,
      () => `${reception.clients.size} clients, ${pool.live.length} workers`,
    );
    this.idleClock = idleClock;
    this.pool = pool;
    this.scaling = scaling;
    this.reception = reception;
  }

  runHooks(event: HookEvent): Promise<void> {
    return runHooks(event, {
      file: this.configuration.paths.hookFile,
      env: process.env,
      timeoutSeconds: hookTimeoutSeconds,
      log: this.log.for('daemon.hook'),
    });
  }
}
