import type { Transport } from './transports.js';

/**
 * How a call ended: with a reply or an error of its daemon, `lost` when daemon or client went away
 * first, `refused` when the proxy itself answered with an error because no daemon could be given
 * it.
 */
export const callStatuses = ['ok', 'error', 'lost', 'refused'] as const;
export type CallStatus = (typeof callStatuses)[number];

/**
 * Why a connection to a daemon failed: its socket could not be connected to, it answered with an
 * error while it was being opened, it did not answer in time, or it went away.
 */
export const daemonFailures = ['connect', 'refused', 'timeout', 'lost'] as const;
export type DaemonFailure = (typeof daemonFailures)[number];

/**
 * Seconds that the calls of each bucket took at most. A last bucket has those that took longer than
 * all of these.
 */
export const durationBounds = [
  0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
  5, 10, 30, 60,
] as const;

/** Name of the daemons that clients asked for by names nobody knows. */
export const otherDaemon = 'other';

/** Calls of one procedure that ended since the last report. */
export interface CallReport {
  readonly program: number;
  /** 0 stands for all that the table of procedures does not know. */
  readonly procedure: number;
  /** In the order of `callStatuses`. */
  readonly counts: readonly number[];
}

/** That a daemon went away while clients had connections to it, which are opened again. */
export interface RestartReport {
  /** Its socket. */
  readonly path: string;
  /**
   * When the first connection was lost, in milliseconds of the system's monotonic clock: the same
   * for all processes.
   */
  readonly at: number;
}

/** Connections to one daemon, and their calls. */
export interface DaemonReport {
  readonly daemon: string;
  /** Connections open now. */
  readonly open: number;
  /** Connections opened since the last report. */
  readonly opened: number;
  /** Since the last report, in the order of `daemonFailures`. */
  readonly failures: readonly number[];
  /** Calls answered since the last report, by the buckets of `durationBounds`. */
  readonly durations: readonly number[];
  /** Seconds that these calls took, all together. */
  readonly seconds: number;
  /** Since the last report; other workers tell of the same ones. */
  readonly restarts: readonly RestartReport[];
  /** Connections that are being opened again now. */
  readonly reopening: number;
  /**
   * Connections opened again since the last report, and calls that were sent again or failed
   * because of a restart.
   */
  readonly reopened: number;
  readonly repeated: number;
  readonly failed: number;
}

export interface ByteCounts {
  readonly in: number;
  readonly out: number;
}

/** What a worker has done since its last report, and how it is. Plain data, sent as JSON. */
export interface WorkerReport {
  /** Calls under way and held back, now. */
  readonly underWay: number;
  readonly held: number;
  readonly calls: readonly CallReport[];
  readonly daemons: readonly DaemonReport[];
  /** Bytes from and to clients. */
  readonly bytes: Readonly<Record<Transport, ByteCounts>>;
  /** Log lines and audit entries that the primary did not take. */
  readonly lostLines: number;
  /** Seconds since the last report, and of CPU time in them. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  /** The longest time by which the event loop was late. */
  readonly lagSeconds: number;
}
