import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from '../../logging/logger.js';
import type { CallMeter, DaemonMeter } from '../reports/call-meter.js';
import type { Endpoint } from './directory.js';
import { isPassing } from './errors.js';

/**
 * Milliseconds within which links that lose the same daemon count as one restart, and for which its
 * line waits at least.
 */
const gathering = 200;

/**
 * Milliseconds between attempts to reach a daemon that is away: the first, doubled each time, and
 * the longest.
 */
const shortestPause = 25;
const longestPause = 1000;

/** Milliseconds over which clients spread that have no calls waiting. */
const spread = 250;

/**
 * How daemons that went away are waited for. Source: daemon_restart_timeout and
 * max_daemon_reopenings.
 */
export interface RestartSettings {
  /** Milliseconds; 0: a daemon that is gone is not waited for, and its calls fail. */
  readonly patience: number;
  /** Connections that are being opened again at a time. */
  readonly maxAtOnce: number;
}

/** One daemon's end and its return, as this worker's clients see it. */
export class Restart {
  clients = 0;
  repeated = 0;
  failed = 0;
  /** Links that are being opened again. */
  underWay = 0;
  /** The last link that was opened again, or was not, by `performance.now()`. */
  settledAt: number | null = null;
  isBack = true;
  readonly startedAt = performance.now();

  constructor(
    readonly endpoint: Endpoint,
    readonly reason: string,
  ) {}

  /** The line of the log. */
  get line(): string {
    const { daemon, path } = this.endpoint;
    const counts = `${this.clients} clients, ${this.repeated} calls repeated, ${this.failed} failed`;
    return `${daemon} at '${path}' went away (${this.reason}): ${counts}, ${this.end}; its own log may say why`;
  }

  private get end(): string {
    if (this.settledAt === null) return 'opened again at the next call';
    const seconds = ((this.settledAt - this.startedAt) / 1000).toFixed(3);
    return this.isBack ? `back after ${seconds} s` : `not back within ${seconds} s`;
  }
}

/** A link on its way back to its daemon. */
export interface Returning {
  /** Calls wait for it. */
  readonly isUrgent: boolean;
  /** Tries to open a connection, for that many milliseconds at most. */
  attempt(most: number): Promise<void>;
}

interface Waiter {
  readonly enter: () => void;
}

/**
 * The daemons that went away, for all links of a worker: how many connections are opened again at a
 * time, first those for which calls wait, and one line of the log for each daemon and restart.
 */
export class DaemonRestarts {
  private readonly current = new Map<string, Restart>();
  private readonly urgent = new Set<Waiter>();
  private readonly patient = new Set<Waiter>();
  private inside = 0;

  constructor(
    readonly settings: RestartSettings,
    private readonly log: Logger,
    /** Null: nobody asks for counts. */
    private readonly meter: CallMeter | null = null,
  ) {}

  /** A link has lost its daemon. */
  onLost(endpoint: Endpoint, reason: string): Restart {
    let restart = this.current.get(endpoint.path);
    if (restart === undefined) {
      restart = new Restart(endpoint, reason);
      this.current.set(endpoint.path, restart);
      this.meterOf(restart)?.wentAway(endpoint.path);
      const begun = restart;
      setTimeout(() => this.tell(begun), gathering);
    }
    restart.clients++;
    return restart;
  }

  /**
   * Calls that were sent again, and those that fail because they cannot be or the daemon did not
   * come back.
   */
  onCalls(restart: Restart, { repeated = 0, failed = 0 }): void {
    restart.repeated += repeated;
    restart.failed += failed;
    this.meterOf(restart)?.carriedOver(repeated, failed);
  }

  /** A link is being opened again. */
  onReopening(restart: Restart): void {
    restart.underWay++;
    this.meterOf(restart)?.reopening();
  }

  /** Its daemon is back, or has stayed away for too long, or its client left. */
  onSettled(restart: Restart, outcome: 'back' | 'away' | 'left'): void {
    restart.underWay--;
    this.meterOf(restart)?.settled(outcome === 'back');
    if (outcome !== 'left') {
      restart.settledAt = performance.now();
      restart.isBack = outcome === 'back';
    }
    if (performance.now() - restart.startedAt > gathering) this.tell(restart);
  }

  /**
   * Has a link tried to be opened until it is, or `patience` milliseconds have passed (0: once),
   * while its daemon only is not there yet. Rejects with the last attempt's error, or the signal's
   * reason.
   */
  async reach(link: Returning, patience: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + patience;
    if (!link.isUrgent) await pause(Math.random() * spread, undefined, { signal });
    for (let wait = shortestPause; ; wait = Math.min(2 * wait, longestPause)) {
      const leave = await this.enter(link.isUrgent, signal);
      try {
        signal.throwIfAborted();
        await link.attempt(patience === 0 ? Infinity : deadline - performance.now());
        return;
      } catch (error) {
        if (signal.aborted || !isPassing(error) || performance.now() >= deadline) throw error;
      } finally {
        leave();
      }
      const moment = Math.min(wait * (0.5 + Math.random() / 2), deadline - performance.now());
      await pause(moment, undefined, { signal });
    }
  }

  /**
   * Waits for its turn to open a connection; `isUrgent` when calls wait for it. Resolves with what
   * must be called at the end. Rejects with the signal's reason.
   */
  private async enter(isUrgent: boolean, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.inside < this.settings.maxAtOnce) this.inside++;
    else await this.queueUp(isUrgent ? this.urgent : this.patient, signal);
    return () => {
      const [next] = this.urgent.size > 0 ? this.urgent : this.patient;
      // Whoever enters next takes this place.
      if (next === undefined) this.inside--;
      else next.enter();
    };
  }

  private queueUp(queue: Set<Waiter>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        queue.delete(waiter);
        signal.removeEventListener('abort', aborted);
      };
      const waiter: Waiter = {
        enter: () => {
          leave();
          resolve();
        },
      };
      const aborted = (): void => {
        leave();
        reject(signal.reason as Error);
      };
      queue.add(waiter);
      signal.addEventListener('abort', aborted);
    });
  }

  /** Writes a restart's line, once, when nothing of it is under way. */
  private tell(restart: Restart): void {
    const { path } = restart.endpoint;
    if (this.current.get(path) !== restart || restart.underWay > 0) return;
    this.current.delete(path);
    this.log.warning(restart.line);
  }

  private meterOf({ endpoint }: Restart): DaemonMeter | null {
    return this.meter?.daemon(endpoint.daemon) ?? null;
  }
}
