import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClientProcess } from '../peers/clients.js';
import { runningProcesses, type RunningProcess } from '../peers/proxy.js';
import { freshDirectory, until } from '../peers/waiting.js';
import type { Competitor, Launched, Task } from './competitors.js';
import { resultOf, startLoad, startStandIn } from './load.js';
import { processTree } from './processes.js';
import type { Programs } from './programs.js';
import { Results, type Figures, type RowDescription } from './results.js';

export interface BenchOptions {
  /** How long each repetition of a row loads a competitor, after a third as much to warm up. */
  readonly seconds: number;
  readonly repeats: number;
  /** Bytes of a stream or a volume. */
  readonly streamBytes: number;
}

/** A competitor that serves. */
export interface Subject {
  readonly competitor: Competitor;
  readonly socket: string;
  readonly tlsPort: number | null;
  /** Its processes, as of now. */
  readonly pids: () => number[];
  readonly stop: () => Promise<void>;
}

/** A competitor that was started and may not serve yet. */
type Candidate = Launched & Pick<Subject, 'competitor' | 'stop'>;

/** How long a competitor may take to end in order, in milliseconds. */
const stopPatience = 10_000;

/** One run: what it measures with, what it has started, what came out. */
export class Bench {
  readonly results = new Results();
  failures = 0;
  readonly skipped: { rows: string; reason: string }[] = [];
  private readonly closers = new Set<() => Promise<unknown>>();
  private closed: Promise<void> | null = null;

  private constructor(
    readonly directory: string,
    readonly programs: Programs,
    readonly competitors: readonly Competitor[],
    readonly options: BenchOptions,
    /** Told what is going on. */
    private readonly progress: (line: string) => void,
    /** The stand-in daemon's. */
    readonly daemon: string,
  ) {}

  /** Makes a directory for the run and starts the stand-in daemon; `close()` undoes both. */
  static async open(
    programs: Programs,
    competitors: readonly Competitor[],
    options: BenchOptions,
    progress: (line: string) => void = () => undefined,
  ): Promise<Bench> {
    const directory = await freshDirectory();
    const socket = join(directory, 'daemon-sock');
    const bench = new Bench(directory, programs, competitors, options, progress, socket);
    bench.closing(() => rm(directory, { recursive: true, force: true }));
    const daemon = await startStandIn(programs.standIn, socket);
    bench.closing(() => daemon.kill());
    return bench;
  }

  /** Has `closer` called at the end, unless what it returns was called before. */
  closing(closer: () => Promise<unknown>): () => Promise<void> {
    const once = async (): Promise<void> => {
      if (this.closers.delete(once)) await closer();
    };
    this.closers.add(once);
    return once;
  }

  /** Ends everything that was started, the last first. */
  close(): Promise<void> {
    this.closed ??= this.endAll([...this.closers]);
    return this.closed;
  }

  /**
   * Does `work` and then ends what it has started. Once the run is being closed it does nothing
   * more.
   */
  async within(work: () => Promise<void>): Promise<void> {
    if (this.closed) return;
    const before = new Set(this.closers);
    try {
      await work();
    } finally {
      await this.endAll([...this.closers].filter((closer) => !before.has(closer)));
    }
  }

  private async endAll(closers: readonly (() => Promise<unknown>)[]): Promise<void> {
    const failures: unknown[] = [];
    for (const closer of closers.toReversed()) {
      await closer().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Starts a competitor without waiting until it serves. */
  async launch(competitor: Competitor, task: Omit<Task, 'directory'>): Promise<Candidate> {
    const directory = await mkdtemp(join(this.directory, 'p-'));
    const launched = await competitor.launch({ ...task, directory });
    const stop = this.closing(async () => {
      if (launched.process) await end(launched.process);
    });
    return { competitor, ...launched, stop };
  }

  /**
   * Starts a competitor; resolves when it serves, unless it asks for SASL. Rejects with its words
   * when it ends.
   */
  async start(
    competitor: Competitor,
    task: Omit<Task, 'directory'>,
    uri?: string,
  ): Promise<Subject> {
    const candidate = await this.launch(competitor, task);
    const { socket, tlsPort, process: child, stop } = candidate;
    if (child && task.saslDirectory === undefined) await this.firstAnswer(candidate, uri);
    const pids = (): number[] => (child === null ? [] : processTree(child.pid));
    return { competitor, socket, tlsPort, pids, stop };
  }

  /**
   * Resolves when a client was served: microseconds of the monotonic clock. Rejects when the
   * candidate ends.
   */
  async firstAnswer(
    { competitor, socket, process: child }: Candidate,
    uri = 'qemu:///system',
  ): Promise<number> {
    const load = startLoad(this.programs.generator, 'first', { socket, uri });
    const served = resultOf(load).catch(() => null);
    const result = await Promise.race([served, child?.finished.then(() => null) ?? served]);
    if (result?.errors === 0) return result.firstAnswerAt;
    await load.kill();
    throw new Error(`${competitor.name} did not serve a client. It said: ${child?.stderr ?? ''}`);
  }

  /** Measures every row with every competitor in turn, and all of that `repeats` times. */
  async interleave<R extends RowDescription, S>(
    rows: readonly R[],
    subjects: readonly S[],
    nameOf: (subject: S) => string,
    measure: (row: R, subject: S) => Promise<Figures>,
  ): Promise<void> {
    for (const row of rows) {
      for (let repeat = 1; repeat <= this.options.repeats; repeat++) {
        for (const subject of subjects) {
          const name = nameOf(subject);
          this.progress(`${row.name}: ${name}, ${repeat} of ${this.options.repeats}`);
          this.results.add(row, name, await measure(row, subject));
        }
      }
    }
  }

  skip(rows: string, reason: string): void {
    this.skipped.push({ rows, reason });
  }

  /** Rows could not be measured to their end. The others still can. */
  fail(rows: string, error: unknown): void {
    this.failures++;
    this.skip(rows, error instanceof Error ? error.message : String(error));
  }
}

async function end(child: ClientProcess): Promise<void> {
  const tree = processTree(child.pid);
  const force = setTimeout(() => void child.kill('SIGKILL'), stopPatience);
  await child.kill('SIGTERM');
  clearTimeout(force);
  // A primary that was killed does not wait for its workers; they end when it is gone.
  const runs = ({ pid }: RunningProcess): boolean => tree.includes(pid);
  await until(() => !runningProcesses().some(runs), { what: 'the processes to end' });
}
