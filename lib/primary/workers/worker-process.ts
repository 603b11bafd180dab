import type { Worker as ClusterWorker } from 'node:cluster';
import { createInterface } from 'node:readline';
import type { Duplex, Readable } from 'node:stream';
import { ControlChannel } from '../../control/channel.js';
import type {
  ClientIntroduction,
  PrimaryMessage,
  WorkerLoad,
  WorkerMessage,
  WorkerSetup,
} from '../../control/messages.js';
import type { WorkerGauges } from '../../metrics/worker-gauges.js';
import type { SocketHandle } from '../../transport/socket-stream.js';

/**
 * `spare`: forked and not configured; `starting`: configured and not ready; `draining`: takes no more clients;
 * `gone`: the process has ended.
 */
export const workerStates = ['spare', 'starting', 'ready', 'draining', 'gone'] as const;
export type WorkerState = (typeof workerStates)[number];

/** What a worker process tells the pool. */
export interface WorkerEvents {
  message(worker: WorkerProcess, message: WorkerMessage): void;
  /** A line on its standard error: node's or a library's own words, as when it crashes. */
  complaint(worker: WorkerProcess, line: string): void;
  gone(worker: WorkerProcess, how: string): void;
}

/** The descriptor of the control channel in a worker's stdio. */
const controlDescriptor = 4;

/** A worker's stdio: nothing to read or print, complaints to us, node's channel, the control channel. */
export const workerStdio = ['ignore', 'ignore', 'pipe', 'ipc', 'pipe'] as const;

/** What a worker used, when it was last looked at. */
export interface WorkerUsage {
  /** Per cent of one core. */
  readonly cpu: number;
  /** Resident bytes. */
  readonly memory: number;
}

/** The primary's side of one worker process. */
export class WorkerProcess {
  state: WorkerState = 'spare';
  /** Counts reloads; a worker belongs to the one whose configuration it was given. */
  generation = 0;
  /** Clients it has or is being handed. */
  clients = 0;
  /** Those it was handed and has not said that it has. */
  private untaken = 0;
  usage: WorkerUsage | null = null;
  /** It has too few descriptors left for further clients. */
  isFull = false;
  /** How it is by its own reports; null until the first. */
  gauges: WorkerGauges | null = null;
  /** It was killed because it did not answer. */
  hung = false;
  /** Whether it has left the cluster, so that a successor is due. */
  hasLeft = false;
  /** Milliseconds of `performance.now()` when it last showed life. */
  aliveAt = performance.now();
  private readonly channel: ControlChannel<PrimaryMessage, WorkerMessage>;
  /** Those that have asked for its load, oldest first. */
  private readonly askers: ((load: WorkerLoad) => void)[] = [];

  constructor(
    private readonly process: ClusterWorker,
    /** A number that no other living worker has, as low as possible. */
    readonly slot: number,
    events: WorkerEvents,
  ) {
    const { stdio } = process.process;
    this.channel = new ControlChannel<PrimaryMessage, WorkerMessage>(
      stdio[controlDescriptor] as unknown as Duplex,
      (message) => {
        this.aliveAt = performance.now();
        if (message.kind === 'taken') this.untaken--;
        if (message.kind === 'load') this.askers.shift()?.(message);
        else events.message(this, message);
      },
      () => undefined,
    );
    createInterface({ input: stdio[2] as Readable }).on('line', (line) => {
      events.complaint(this, line);
    });
    // Not at 'exit': what it said last must have been read before its clients are given to others.
    process.process.once('close', (code: number | null, signal: string | null) => {
      this.channel.close();
      events.gone(
        this,
        signal === null ? `ended with status ${code ?? 0}` : `was killed by ${signal}`,
      );
    });
    // A worker that dies while a message is on its way to it is dealt with when it has gone.
    process.on('error', () => undefined);
  }

  get pid(): number {
    return this.process.process.pid ?? 0;
  }

  /** Whether this is the process that the cluster module speaks of. */
  is(process: ClusterWorker): boolean {
    return this.process === process;
  }

  /** Whether it may have clients. */
  get hasServed(): boolean {
    return this.state !== 'spare' && this.state !== 'starting';
  }

  isLessBusyThan(other: WorkerProcess): boolean {
    return this.untaken === other.untaken
      ? this.clients < other.clients
      : this.untaken < other.untaken;
  }

  configure(setup: WorkerSetup, generation: number): void {
    this.state = 'starting';
    this.generation = generation;
    this.aliveAt = performance.now();
    this.send({ kind: 'configure', ...setup });
  }

  send(message: PrimaryMessage): void {
    this.channel.send(message);
  }

  /** Resolves when it has done all that it was told; never when it ends before. */
  load(): Promise<WorkerLoad> {
    return new Promise((resolve) => {
      this.askers.push(resolve);
      this.send({ kind: 'load' });
    });
  }

  /** Hands over an accepted socket; our copy stays open until the worker says that it has its own. */
  hand(introduction: ClientIntroduction, handle: SocketHandle): void {
    this.clients++;
    this.untaken++;
    // Node sends its own raw handles as well as the wrapped ones its types name.
    this.process.send(introduction, handle as never, undefined, () => undefined);
  }

  /** Leaves the cluster, so that throng forks a successor, and goes on serving its clients. */
  drain(seconds: number): void {
    if (this.state === 'draining' || this.state === 'gone') return;
    this.state = 'draining';
    this.send({ kind: 'drain', seconds });
    this.process.disconnect();
  }

  kill(): void {
    this.process.process.kill('SIGKILL');
  }
}
