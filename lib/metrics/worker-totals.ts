import { transports } from '../control/messages.js';
import {
  callStatuses,
  daemonFailures,
  durationBounds,
  type CallReport,
  type DaemonReport,
  type WorkerReport,
} from '../control/worker-report.js';
import { procedureAt, programName } from '../rpc/procedures.js';
import { RestartCount } from './restart-count.js';

/** Calls of one procedure so far. */
export interface CallTotals {
  readonly program: string;
  /** `other` for all that the table of procedures does not know. */
  readonly procedure: string;
  /** In the order of `callStatuses`. */
  readonly counts: number[];
}

/** Connections to one daemon and their calls so far. */
export interface DaemonTotals {
  opened: number;
  /** In the order of `daemonFailures`. */
  readonly failures: number[];
  /**
   * Calls by duration: one number for each of `durationBounds`, and one for those that took longer.
   */
  readonly durations: number[];
  seconds: number;
  readonly restarts: RestartCount;
  /** Connections opened again, and calls sent again or failed, after these. */
  reopened: number;
  repeated: number;
  failed: number;
}

/** What the procedures that the table lacks are called. */
const otherProcedure = 'other';

const zeros = (count: number): number[] => Array<number>(count).fill(0);

/**
 * What all workers there were have done, from their reports. It outlives them, so that no number
 * ever goes back; what a worker did after its last report is missing when it is killed.
 */
export class WorkerTotals {
  readonly bytes = {
    unix: { in: 0, out: 0 },
    tcp: { in: 0, out: 0 },
    tls: { in: 0, out: 0 },
  };
  /** Seconds of CPU time by the workers' slots. */
  readonly cpuSeconds = new Map<number, number>();
  lostLines = 0;
  private readonly byProcedure = new Map<string, CallTotals>();
  private readonly byDaemon = new Map<string, DaemonTotals>();

  get calls(): Iterable<CallTotals> {
    return this.byProcedure.values();
  }

  get daemons(): ReadonlyMap<string, DaemonTotals> {
    return this.byDaemon;
  }

  /** Calls that ended so far, in the order of `callStatuses`. */
  get callsByStatus(): number[] {
    const sum = zeros(callStatuses.length);
    for (const { counts } of this.calls) addTo(sum, counts);
    return sum;
  }

  /** Adds what the worker in a slot did since its last report. */
  add(slot: number, report: WorkerReport): void {
    for (const call of report.calls) this.addCalls(call);
    for (const daemon of report.daemons) this.addDaemon(slot, daemon);
    for (const transport of transports) {
      this.bytes[transport].in += report.bytes[transport].in;
      this.bytes[transport].out += report.bytes[transport].out;
    }
    this.cpuSeconds.set(slot, (this.cpuSeconds.get(slot) ?? 0) + report.cpuSeconds);
    this.lostLines += report.lostLines;
  }

  private addCalls({ program, procedure, counts }: CallReport): void {
    const name = procedureAt(program, procedure)?.name ?? otherProcedure;
    const key = `${program} ${name}`;
    let totals = this.byProcedure.get(key);
    if (totals === undefined) {
      totals = { program: programName(program), procedure: name, counts: zeros(counts.length) };
      this.byProcedure.set(key, totals);
    }
    addTo(totals.counts, counts);
  }

  private addDaemon(slot: number, report: DaemonReport): void {
    const { daemon, opened, failures, durations, seconds } = report;
    let totals = this.byDaemon.get(daemon);
    if (totals === undefined) {
      totals = {
        opened: 0,
        failures: zeros(daemonFailures.length),
        durations: zeros(durationBounds.length + 1),
        seconds: 0,
        restarts: new RestartCount(),
        reopened: 0,
        repeated: 0,
        failed: 0,
      };
      this.byDaemon.set(daemon, totals);
    }
    totals.opened += opened;
    totals.seconds += seconds;
    addTo(totals.failures, failures);
    addTo(totals.durations, durations);
    for (const restart of report.restarts) totals.restarts.add(slot, restart);
    totals.reopened += report.reopened;
    totals.repeated += report.repeated;
    totals.failed += report.failed;
  }
}

function addTo(sum: number[], counts: readonly number[]): void {
  counts.forEach((count, index) => (sum[index] = (sum[index] ?? 0) + count));
}
