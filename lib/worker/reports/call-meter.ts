import type { CallHeader } from '../../rpc/frame.js';
import {
  callStatuses,
  daemonFailures,
  durationBounds,
  otherDaemon,
  type CallReport,
  type CallStatus,
  type DaemonFailure,
  type DaemonReport,
  type RestartReport,
} from '../../control/worker-report.js';
import { procedures } from '../../rpc/procedures.js';

/** In milliseconds; the last has room for everything. */
const bounds = [...durationBounds.map((seconds) => seconds * 1000), Infinity];

const statusCount = callStatuses.length;
const statusAt = Object.fromEntries(
  callStatuses.map((status, index) => [status, index]),
) as Readonly<Record<CallStatus, number>>;

/** Milliseconds of the system's monotonic clock. */
const monotonicTime = (): number => Number(process.hrtime.bigint() / 1_000_000n);

const zeros = (count: number): number[] => Array<number>(count).fill(0);

/**
 * Counts of one program's calls, `statusCount` for each procedure number; 0 is for numbers that the
 * table lacks.
 */
class ProgramCounts {
  private readonly known: boolean[] = [];
  private counts: number[];

  constructor(readonly program: number) {
    for (const { program: of, number } of procedures) if (of === program) this.known[number] = true;
    this.counts = this.none();
  }

  add(procedure: number, status: number): void {
    const at = (this.known[procedure] === true ? procedure : 0) * statusCount + status;
    this.counts[at] = (this.counts[at] ?? 0) + 1;
  }

  /** What was counted since the last time. */
  *take(): Iterable<CallReport> {
    const { program, counts } = this;
    this.counts = this.none();
    for (let procedure = 0; procedure * statusCount < counts.length; procedure++) {
      const own = counts.slice(procedure * statusCount, (procedure + 1) * statusCount);
      if (own.some((count) => count > 0)) yield { program, procedure, counts: own };
    }
  }

  private none(): number[] {
    return zeros(Math.max(this.known.length, 1) * statusCount);
  }
}

/**
 * Counts a worker's calls and what they cost. All that happens for every call is arithmetic on
 * arrays of numbers; names come in when somebody asks for a report.
 */
export class CallMeter {
  /** Milliseconds of `performance.now()` when the chunk that is dealt with arrived. */
  now = performance.now();
  private readonly programs: readonly ProgramCounts[];
  private readonly daemons = new Map<string, DaemonMeter>();

  /** `known` are the names of the daemons there may be; a client can name any other. */
  constructor(private readonly known: ReadonlySet<string>) {
    const numbers = new Set(procedures.map(({ program }) => program));
    this.programs = [...numbers].map((number) => new ProgramCounts(number));
  }

  /** A chunk has arrived: the calls and replies in it are of this moment. */
  tick(): void {
    this.now = performance.now();
  }

  daemon(name: string): DaemonMeter {
    const label = this.known.has(name) ? name : otherDaemon;
    let meter = this.daemons.get(label);
    if (meter === undefined) this.daemons.set(label, (meter = new DaemonMeter(label, this)));
    return meter;
  }

  /** A call of a forwarded program ended. */
  ended(program: number, procedure: number, status: CallStatus): void {
    this.count(program, procedure, statusAt[status]);
  }

  /** The same, with the number of the status in `callStatuses`. */
  count(program: number, procedure: number, status: number): void {
    for (const counts of this.programs) {
      if (counts.program === program) counts.add(procedure, status);
    }
  }

  /** What was counted since the last time. */
  take(): { readonly calls: readonly CallReport[]; readonly daemons: readonly DaemonReport[] } {
    return {
      calls: this.programs.flatMap((counts) => [...counts.take()]),
      daemons: [...this.daemons.values()].map((meter) => meter.take()),
    };
  }
}

/** Counts the connections to one daemon, and their calls. */
export class DaemonMeter {
  private open = 0;
  private newlyOpened = 0;
  private failures = zeros(daemonFailures.length);
  private durations = zeros(bounds.length);
  private milliseconds = 0;
  private restarts: RestartReport[] = [];
  private beingReopened = 0;
  private reopened = 0;
  private repeated = 0;
  private failedCalls = 0;

  constructor(
    private readonly daemon: string,
    private readonly calls: CallMeter,
  ) {}

  get now(): number {
    return this.calls.now;
  }

  tick(): void {
    this.calls.tick();
  }

  opened(): void {
    this.open++;
    this.newlyOpened++;
  }

  /** A connection that was open is not any more. */
  closed(): void {
    this.open--;
  }

  failed(why: DaemonFailure): void {
    const at = daemonFailures.indexOf(why);
    this.failures[at] = (this.failures[at] ?? 0) + 1;
  }

  /** The reply to a call has come that was forwarded at `startedAt`, as `now` gives it. */
  answered(program: number, procedure: number, startedAt: number, succeeded: boolean): void {
    const { durations } = this;
    const taken = this.calls.now - startedAt;
    let bucket = 0;
    while (taken > (bounds[bucket] ?? Infinity)) bucket++;
    durations[bucket] = (durations[bucket] ?? 0) + 1;
    this.milliseconds += taken;
    this.calls.count(program, procedure, succeeded ? statusAt.ok : statusAt.error);
  }

  /** No reply to these will come, or nobody will see it. */
  lost(calls: readonly CallHeader[]): void {
    for (const { program, procedure } of calls) this.calls.ended(program, procedure, 'lost');
  }

  /** The daemon has ended, and its connections will be opened again. */
  wentAway(path: string): void {
    this.restarts.push({ path, at: monotonicTime() });
  }

  /** One of these connections is being opened again. */
  reopening(): void {
    this.beingReopened++;
  }

  /** It is not any more. */
  settled(isOpen: boolean): void {
    this.beingReopened--;
    if (isOpen) this.reopened++;
  }

  /** Calls that a restart had cut off were sent again, or could not be. */
  carriedOver(repeated: number, failed: number): void {
    this.repeated += repeated;
    this.failedCalls += failed;
  }

  take(): DaemonReport {
    const { daemon, open, newlyOpened, failures, durations, milliseconds } = this;
    const { restarts, beingReopened, reopened, repeated, failedCalls } = this;
    this.newlyOpened = 0;
    this.failures = zeros(failures.length);
    this.durations = zeros(durations.length);
    this.milliseconds = 0;
    this.restarts = [];
    this.reopened = this.repeated = this.failedCalls = 0;
    return {
      daemon,
      open,
      opened: newlyOpened,
      failures,
      durations,
      seconds: milliseconds / 1000,
      restarts,
      reopening: beingReopened,
      reopened,
      repeated,
      failed: failedCalls,
    };
  }
}
