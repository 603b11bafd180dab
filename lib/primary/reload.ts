import { setTimeout as delay } from 'node:timers/promises';
import type { Configuration } from '../config/configuration.js';
import type { WorkerSetup } from '../control/messages.js';
import type { PreparedLogging } from '../logging/log-control.js';
import { errorText } from '../error-text.js';
import { adminSettingsOf } from './administration.js';
import { clientLimits } from './clients/client-limits.js';
import { underActivation } from './listeners/listener-plan.js';
import type { PrimaryParts } from './parts.js';
import { prepare } from './preparation.js';
import type { WorkerProcess } from './workers/worker-process.js';

/** Generations that may drain at a time, beside the one that serves. */
const maxDraining = 2;

/** Milliseconds between looks whether a reload that waits may go on. */
const waitInterval = 100;

/**
 * Takes a new configuration: reads and checks everything, opens what is new, brings up a worker of
 * the new generation, and only then changes over. On any error all stays as it was.
 */
export class Reload {
  /** Reloads that were asked for while none could begin are one. */
  isDue = false;
  private running: Promise<void> = Promise.resolve();

  constructor(private readonly parts: PrimaryParts) {}

  /** Resolves when the reload that has begun has ended, if any has. */
  get end(): Promise<void> {
    return this.running;
  }

  /**
   * Resolves when it has ended, whatever came of it. It is due again when it has become needless
   * before it began.
   */
  run(): Promise<void> {
    this.isDue = false;
    this.running = this.reload();
    return this.running;
  }

  private async reload(): Promise<void> {
    const { life, log, observation, pool, serviceManager, status } = this.parts;
    try {
      if (!(await this.oldGenerationsGone())) {
        this.isDue = true;
        return;
      }
      serviceManager.reloading();
      await this.parts.runHooks('reload');
      if (life.state === 'stopping') return;
      await this.readAnew();
      observation.onReload('success');
      log.info(`reloaded: generation ${pool.currentGeneration} serves`);
      status.onReloaded('the last reload succeeded');
    } catch (error) {
      observation.onReload('failure');
      const reason = errorText(error);
      for (const line of reason.split('\n')) {
        log.error(`reload failed, the old configuration stays in force: ${line}`);
      }
      status.onReloaded(`the last reload failed: ${reason}`);
    }
  }

  /**
   * A generation drains until its clients have left: that is up to them. False: an upgrade or the
   * end has come first.
   */
  private async oldGenerationsGone(): Promise<boolean> {
    const { life, log, pool } = this.parts;
    if (pool.drainingGenerations < maxDraining) return true;
    log.warning(
      `reload waits: ${maxDraining} older generations still serve clients; set drain_timeout to limit their time`,
    );
    while (pool.drainingGenerations >= maxDraining) {
      await delay(waitInterval);
      if (life.state !== 'reloading') return false;
    }
    return true;
  }

  private async readAnew(): Promise<void> {
    const { options, entrance, logging } = this.parts;
    const configuration = underActivation(
      options.readConfiguration(),
      entrance.listeners.activated,
    );
    const logChange = logging.prepare(configuration);
    try {
      await this.changeTo(configuration, logChange);
    } catch (error) {
      logChange.abandon();
      throw error;
    }
  }

  /** On an error nothing but the log's change is left to undo. */
  private async changeTo(configuration: Configuration, logChange: PreparedLogging): Promise<void> {
    const { parts } = this;
    const { admin, entrance, log, observation, pool, reception } = parts;
    const { listeners } = entrance;
    const { certificates, metrics, ...given } = await prepare(parts, configuration);
    const setup: WorkerSetup = { configuration, logging: logChange.forWorkers, ...given };
    let first: WorkerProcess;
    try {
      first = await pool.prepare(setup);
    } catch (error) {
      listeners.abandon();
      throw error;
    }
    parts.configuration = configuration;
    logChange.commit();
    for (const warning of configuration.warnings) log.warning(warning);
    observation.certificates = certificates;
    entrance.metrics = metrics;
    metrics?.turn(configuration.metrics.listen !== null);
    reception.limits = clientLimits(configuration);
    admin.configure(adminSettingsOf(configuration));
    pool.renew(first, setup);
    listeners.commit();
    entrance.serve();
  }
}
