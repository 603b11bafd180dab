/**
 * The room of worker processes: starting, replacing and draining them, generations, their health.
 * What enters is about a process and the messages to it; of clients it knows how many there are.
 */
import type { Worker as ClusterWorker } from 'node:cluster';
import type { TlsContents } from '../../config/paths.js';
import type { ClientIntroduction, WorkerSetup } from '../../control/messages.js';
import type { RestartReason, WorkerBounds, WorkerUser } from '../../control/workers.js';
import type { WorkerLogging } from '../../logging/log-control.js';
import type { Logger } from '../../logging/logger.js';
import { openFilesLimit } from '../../native/descriptors.js';
import type { SocketHandle } from '../../transport/node-socket.js';
import { CrashBackOff } from './crash-back-off.js';
import type { ForkEvents, Forks } from './forks.js';
import { WorkerProcess, type WorkerEvents, type WorkerNews } from './worker-process.js';
import { WorkerSet } from './worker-set.js';

/** What the pool tells the primary. */
export interface PoolEvents {
  /** A worker can take clients. */
  onWorkerReady(): void;
  onWorkerNews(worker: WorkerProcess, news: WorkerNews): void;
  /** A worker is gone, and its clients with it. */
  onWorkerLost(worker: WorkerProcess): void;
}

/** No worker of a configuration came up. */
export class WorkerStartError extends Error {
  readonly code = 'WORKER_START';
}

/** Descriptors of a worker beside those for its clients, and some that are kept. */
const workersOwnDescriptors = 64;

/** Crashes in a row, with no worker ready, after which a start is given up. */
const maxCrashesAtStart = 3;

const boundsOf = ({ configuration }: WorkerSetup): WorkerBounds => ({
  minWorkers: configuration.cluster.min_workers,
  maxWorkers: configuration.cluster.workers,
});

/** What has to be said when the first worker is ready, or when none will be. */
interface Start {
  readonly resolve: () => void;
  readonly reject: (error: WorkerStartError) => void;
}

/**
 * The worker processes. As many are forked as there should be, and another when one has left the
 * cluster: at once if it drains, after crashes later and later, since a worker may be unable even
 * to load. A forked worker is a spare, which does nothing; the pool configures as many spares as
 * workers are missing.
 */
export class WorkerPool implements WorkerEvents, ForkEvents {
  /** Workers that were replaced so far, by the reason. */
  readonly restarts: Record<RestartReason, number> = { crash: 0, hang: 0, memory: 0, sasl: 0 };
  private readonly workers = new WorkerSet();
  private backOff = new CrashBackOff();
  private setup: WorkerSetup | null = null;
  private target = 0;
  private least = 0;
  private most = 0;
  private crashesInARow = 0;
  /** Each of them needs a descriptor, and at least one more for a daemon. */
  private readonly mostClients = Math.floor(
    (Number(openFilesLimit().soft) - workersOwnDescriptors) / 2,
  );
  private stopping = false;
  /** Set while replacements wait after a crash. */
  private wait: NodeJS.Timeout | null = null;
  /** Set until the first worker is ready. */
  private starting: Start | null = null;
  /** Those that wait until no worker is left. */
  private readonly awaitingEnd: (() => void)[] = [];

  constructor(
    private readonly forks: Forks,
    private readonly events: PoolEvents,
    private readonly log: Logger,
  ) {}

  /**
   * Starts the least number of workers and keeps their number up. Resolves when the first is ready.
   * Throws WorkerStartError.
   */
  async start(setup: WorkerSetup): Promise<void> {
    this.setup = setup;
    this.workers.generation = 1;
    this.bound(boundsOf(setup));
    const started = new Promise<void>((resolve, reject) => {
      this.starting = { resolve, reject };
    });
    await Promise.all([this.forks.start(this.target, setup.user, this), started]);
  }

  /** Those that are alive: spare and draining ones included. */
  get all(): ReadonlySet<WorkerProcess> {
    return this.workers.all;
  }

  get currentGeneration(): number {
    return this.workers.generation;
  }

  /** How many workers there should be. */
  get wanted(): number {
    return this.target;
  }

  /** Those that serve new clients. */
  get ready(): WorkerProcess[] {
    return this.workers.ready;
  }

  /** A worker of the current generation serves its last clients. */
  get isDraining(): boolean {
    return this.workers.draining.length > 0;
  }

  /** How many older generations still have workers that drain. */
  get drainingGenerations(): number {
    return this.workers.drainingGenerations;
  }

  /** Those that serve new clients, or will. */
  get live(): WorkerProcess[] {
    return this.workers.live;
  }

  /**
   * Brings up one worker of a new generation. Resolves with it when it is ready; it takes clients
   * only after `renew`. Throws WorkerStartError when it ends before, and nothing has changed then.
   */
  async prepare(setup: WorkerSetup): Promise<WorkerProcess> {
    this.ensureRunning();
    // Spares run as the user of the configuration in force.
    const spare = this.keepsUser(setup) ? this.workers.spares[0] : undefined;
    const worker = spare ?? this.adopt(this.forks.fork(setup.user));
    worker.configure(setup, this.currentGeneration + 1);
    if (!(await worker.untilReady())) {
      const sentence = `worker ${worker.pid} of the new generation ended before it was ready`;
      throw new WorkerStartError(sentence);
    }
    this.ensureRunning();
    return worker;
  }

  /**
   * Makes the generation of a prepared worker the current one and drains all others. It has as many
   * workers as there were, within the new bounds.
   */
  renew(first: WorkerProcess, setup: WorkerSetup): void {
    if (!this.keepsUser(setup)) for (const spare of this.workers.spares) spare.discard();
    this.setup = setup;
    this.workers.generation = first.generation;
    this.bound(boundsOf(setup));
    this.backOff = new CrashBackOff();
    this.waitNoLonger();
    const seconds = setup.configuration.cluster.drain_timeout;
    const { staying } = this.workers;
    for (const worker of staying) {
      if (worker.generation !== first.generation && worker.state !== 'spare') worker.drain(seconds);
    }
    // Those that drain are replaced as they leave the cluster; only a higher number needs more.
    for (let there = staying.length; there < this.target; there++) this.forks.fork(setup.user);
    this.fill();
  }

  /** Changes what workers log, those to come included. */
  setLogging(logging: WorkerLogging): void {
    if (this.setup !== null) this.setup = { ...this.setup, logging };
    for (const worker of this.workers.all) {
      // A spare will be told when it is configured.
      if (worker.state !== 'spare') worker.send({ kind: 'logging', ...logging });
    }
  }

  /** Has workers serve with other TLS files from now on, those to come included. */
  setTls(tls: TlsContents): void {
    if (this.setup !== null) this.setup = { ...this.setup, tls };
    for (const worker of this.live) worker.send({ kind: 'tls', tls });
  }

  /** The configuration's, until `resize` sets others. */
  get bounds(): WorkerBounds {
    return { minWorkers: this.least, maxWorkers: this.most };
  }

  /**
   * Changes the number of workers to one within the bounds: more are started, or those with the
   * fewest clients drain.
   */
  resize(bounds: WorkerBounds): void {
    this.bound(bounds);
    this.adjust(this.setup?.configuration.cluster.drain_timeout ?? 0);
  }

  /**
   * Changes how many workers there should be, to a number within the bounds. Nobody asked for it:
   * those that are too many serve their clients for as long as these stay, whatever drain_timeout
   * is.
   */
  want(count: number): void {
    if (this.stopping) return;
    this.target = count;
    this.adjust(0);
  }

  /** Of those that drain in the current generation there are as many as there may be that serve. */
  get isFullOfDraining(): boolean {
    return this.workers.draining.length >= this.most;
  }

  /** Lets one worker drain; a successor takes its place. */
  retire(worker: WorkerProcess, reason: RestartReason): void {
    this.restarts[reason]++;
    worker.drain(this.setup?.configuration.cluster.drain_timeout ?? 0);
    this.fill();
  }

  /** Lets all workers drain, without successors. Resolves when none is left. */
  async drainAll(): Promise<void> {
    this.end();
    for (const worker of this.workers.all) {
      if (!worker.hasServed) worker.kill();
      else worker.drain(this.setup?.configuration.cluster.drain_timeout ?? 0);
    }
    await this.empty();
  }

  /** Hands a client to the worker that is least busy; null when none may have another. */
  hand(introduction: ClientIntroduction, handle: SocketHandle): WorkerProcess | null {
    const worker = this.workers.leastBusy(this.mostClients);
    worker?.hand(introduction, handle);
    return worker;
  }

  /** Ends all workers: `seconds` for pending replies, then one more for the rest, then by force. */
  async stop(seconds: number): Promise<void> {
    this.end();
    for (const worker of this.workers.all) {
      if (!worker.hasServed) worker.kill();
      else worker.send({ kind: 'stop', seconds });
    }
    const force = setTimeout(() => this.killAll(), (seconds + 1) * 1000);
    await this.empty();
    clearTimeout(force);
  }

  /** Ends all workers at once. */
  killAll(): void {
    this.end();
    for (const worker of this.workers.all) worker.kill();
  }

  onFork(process: ClusterWorker): void {
    this.adopt(process);
    this.fill();
  }

  /**
   * A process left the cluster, to drain or because it died; its end counts as well.
   */
  onDisconnect(process: ClusterWorker): void {
    const worker = this.workers.find(process);
    if (worker !== undefined) this.onLeft(worker);
  }

  onReady(worker: WorkerProcess): void {
    this.crashesInARow = 0;
    this.log.info(`worker ${worker.pid} of generation ${worker.generation} is ready`);
    if (this.workers.isOfNextGeneration(worker)) return;
    this.starting?.resolve();
    this.events.onWorkerReady();
  }

  onNews(worker: WorkerProcess, news: WorkerNews): void {
    this.events.onWorkerNews(worker, news);
  }

  onComplaint(worker: WorkerProcess, line: string): void {
    this.log.error(`worker ${worker.pid}: ${line}`);
  }

  onEnd(worker: WorkerProcess, how: string): void {
    this.onLeft(worker);
    worker.onGone();
    this.workers.delete(worker);
    this.log.info(`worker ${worker.pid} ${how}`);
    this.events.onWorkerLost(worker);
    if (!this.workers.isEmpty) return;
    for (const tell of this.awaitingEnd.splice(0)) tell();
  }

  /** Whom workers of the configuration in force run as. */
  private get user(): WorkerUser | null {
    return this.setup?.user ?? null;
  }

  private keepsUser({ user }: WorkerSetup): boolean {
    return this.user?.uid === user?.uid && this.user?.gid === user?.gid;
  }

  private bound({ minWorkers, maxWorkers }: WorkerBounds): void {
    [this.least, this.most] = [minWorkers, maxWorkers];
    this.target = Math.min(Math.max(this.target, minWorkers), maxWorkers);
  }

  /** Lets those that are too many drain, for `seconds` at most (0: no limit), or starts more. */
  private adjust(seconds: number): void {
    for (const worker of this.workers.surplus(this.target)) worker.drain(seconds);
    for (let there = this.workers.available; there < this.target; there++) {
      this.forks.fork(this.user);
    }
    this.fill();
  }

  /** To be called for each worker that has left the cluster; it may have been one too many. */
  private replace(): void {
    if (this.workers.available < this.target) this.forks.replace(this.user);
  }

  private ensureRunning(): void {
    if (this.stopping) throw new WorkerStartError('the daemon stops');
  }

  private empty(): Promise<void> {
    return this.workers.isEmpty
      ? Promise.resolve()
      : new Promise((resolve) => this.awaitingEnd.push(resolve));
  }

  private end(): void {
    if (this.stopping) return;
    this.stopping = true;
    this.waitNoLonger();
    this.forks.stop();
  }

  private adopt(process: ClusterWorker): WorkerProcess {
    const known = this.workers.find(process);
    if (known !== undefined) return known;
    const worker = new WorkerProcess(process, this.workers.freeSlot, this);
    this.workers.add(worker);
    return worker;
  }

  private onLeft(worker: WorkerProcess): void {
    if (worker.hasLeft) return;
    const isExpected = worker.state === 'draining' || this.workers.isOfNextGeneration(worker);
    worker.onLeft();
    if (this.stopping) return;
    if (isExpected) this.replace();
    else this.onCrash(worker);
  }

  private onCrash({ pid, isHung }: WorkerProcess): void {
    this.restarts[isHung ? 'hang' : 'crash']++;
    this.crashesInARow++;
    const delay = this.backOff.onCrash(performance.now() / 1000);
    const when = delay === 0 ? 'now' : `in ${delay} s`;
    const others = this.live.length === 0 ? '; no other worker serves' : '';
    this.log.error(`worker ${pid} died: it is replaced ${when}${others}`);
    if (this.crashesInARow >= maxCrashesAtStart) {
      this.starting?.reject(
        new WorkerStartError('the workers end before they are ready; see the log'),
      );
    }
    this.waitNoLonger();
    if (delay === 0) {
      this.replace();
      return;
    }
    setTimeout(() => this.replace(), delay * 1000).unref();
    this.wait = setTimeout(() => {
      this.wait = null;
      this.fill();
    }, delay * 1000);
  }

  private waitNoLonger(): void {
    if (this.wait !== null) clearTimeout(this.wait);
    this.wait = null;
  }

  /**
   * Configures spares until there are as many workers as there should be; more spares are on their
   * way.
   */
  private fill(): void {
    if (this.setup === null || this.stopping || this.wait !== null) return;
    const { spares, live, generation } = this.workers;
    const missing = Math.max(this.target - live.length, 0);
    for (const worker of spares.slice(0, missing)) worker.configure(this.setup, generation);
  }
}
