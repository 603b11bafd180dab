import type { Worker as ClusterWorker } from 'node:cluster';
import { createInterface } from 'node:readline';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { ControlChannel } from '../../control/channel.js';
import type { Configuration } from '../../config/configuration.js';
import type {
  ClientIntroduction,
  PrimaryMessage,
  WorkerLoad,
  WorkerMessage,
  WorkerSetup,
} from '../../control/messages.js';
import { workerDescriptors } from '../../control/worker-stdio.js';
import { descriptorOf, type SocketHandle } from '../../transport/node-socket.js';
import { sendNumbered, type NumberedDescriptor } from '../../transport/numbered-descriptors.js';
import { SocketStream } from '../../transport/socket-stream.js';
import { ClientPassage } from './client-passage.js';

/**
 * `spare`: forked and not configured; `starting`: configured and not ready; `draining`: takes no
 * more clients; `gone`: the process has ended, or is as good as dead.
 */
export type WorkerState = 'spare' | 'starting' | 'ready' | 'draining' | 'gone';

/** What a worker says of other things than itself. */
export type WorkerNews = Exclude<WorkerMessage, { readonly kind: 'ready' | 'alive' | 'load' }>;

/** What a worker process tells the pool. */
export interface WorkerEvents {
  /** It can take clients. */
  onReady(worker: WorkerProcess): void;
  onNews(worker: WorkerProcess, news: WorkerNews): void;
  /** A line on its standard error: node's or a library's own words, as when it crashes. */
  onComplaint(worker: WorkerProcess, line: string): void;
  /** The process has ended, and all that it had said was read. */
  onEnd(worker: WorkerProcess, how: string): void;
}

/**
 * Milliseconds of silence after which a worker counts as busy all the time: it has missed two
 * heartbeats.
 */
const busySilence = 2500;

/** The primary's side of one worker process. */
export class WorkerProcess {
  private current: WorkerState = 'spare';
  private configuredFor = 0;
  private given: Configuration | null = null;
  private clientCount = 0;
  /** Clients it was ever handed. */
  private handed = 0;
  /** As it said last. */
  private reported = 0;
  private lacksDescriptors = false;
  private wasHung = false;
  private left = false;
  /** How its process has ended. */
  private how = '';
  private endedParts = 0;
  /** Milliseconds of `performance.now()` when it last showed life. */
  private aliveAt = performance.now();
  private readonly channel: ControlChannel<PrimaryMessage, WorkerMessage>;
  private readonly passage: Socket;
  private readonly clientPassage: ClientPassage;
  /** Those that have asked for its load, oldest first. */
  private readonly askers: ((load: WorkerLoad) => void)[] = [];
  /** Those that wait whether it becomes ready. */
  private readonly expectant: ((isReady: boolean) => void)[] = [];

  constructor(
    private readonly process: ClusterWorker,
    /** A number that no other living worker has, as low as possible. */
    readonly slot: number,
    private readonly events: WorkerEvents,
  ) {
    const stdio: readonly unknown[] = process.process.stdio;
    this.channel = new ControlChannel<PrimaryMessage, WorkerMessage>(
      SocketStream.opened(descriptorOf(stdio[workerDescriptors.control] as Socket), false),
      (message) => this.onMessage(message),
      () => this.onPartEnded(),
    );
    this.passage = stdio[workerDescriptors.daemons] as Socket;
    const clients = stdio[workerDescriptors.clients] as Socket;
    this.clientPassage = new ClientPassage(
      clients,
      (introduction) => this.send(introduction),
      () => this.kill(),
    );
    // Of a worker that dies others tell.
    for (const socket of [this.passage, clients]) socket.on('error', () => undefined);
    createInterface({ input: stdio[2] as Readable }).on('line', (line) => {
      events.onComplaint(this, line);
    });
    // Not at 'exit': its complaints are read until then.
    process.process.once('close', (code: number | null, signal: string | null) => {
      this.how = signal === null ? `ended with status ${code ?? 0}` : `was killed by ${signal}`;
      this.onPartEnded();
    });
    // A worker that dies while the cluster module writes to it is dealt with when it has gone.
    process.on('error', () => undefined);
  }

  get pid(): number {
    return this.process.process.pid ?? 0;
  }

  get state(): WorkerState {
    return this.current;
  }

  /** Counts reloads; a worker belongs to the one whose configuration it was given. */
  get generation(): number {
    return this.configuredFor;
  }

  /** That of its generation; null while it is a spare. */
  get configuration(): Configuration | null {
    return this.given;
  }

  /** Clients it has or is being handed. */
  get clients(): number {
    return this.clientCount;
  }

  /** It has too few descriptors left for further clients. */
  get isFull(): boolean {
    return this.lacksDescriptors;
  }

  /** It was killed because it did not answer. */
  get isHung(): boolean {
    return this.wasHung;
  }

  /** Whether it has left the cluster, so that a successor is due. */
  get hasLeft(): boolean {
    return this.left;
  }

  /** Milliseconds since it last showed life. */
  get silence(): number {
    return performance.now() - this.aliveAt;
  }

  /** It does not even answer, and may hang. */
  private get isSilent(): boolean {
    return this.silence > busySilence;
  }

  /** The share of the time in which its event loop was busy lately, 0 to 1. */
  get utilisation(): number {
    return this.isSilent ? 1 : this.reported;
  }

  /** Whether it has been given something to do that it can still do. */
  get isWorking(): boolean {
    return this.current !== 'spare' && this.current !== 'gone';
  }

  /** Whether it may have clients. */
  get hasServed(): boolean {
    return this.current !== 'spare' && this.current !== 'starting';
  }

  /** Whether this is the process that the cluster module speaks of. */
  is(process: ClusterWorker): boolean {
    return this.process === process;
  }

  /** One that does not answer comes last, and before it those that have clients to take. */
  isLessBusyThan(other: WorkerProcess): boolean {
    if (this.isSilent !== other.isSilent) return other.isSilent;
    return this.clientPassage.size === other.clientPassage.size
      ? this.clientCount < other.clientCount
      : this.clientPassage.size < other.clientPassage.size;
  }

  configure(setup: WorkerSetup, generation: number): void {
    this.current = 'starting';
    this.configuredFor = generation;
    this.given = setup.configuration;
    this.aliveAt = performance.now();
    this.send({ kind: 'configure', ...setup });
  }

  /** Resolves when it is ready: true; or when it has left before: false. */
  untilReady(): Promise<boolean> {
    return new Promise((resolve) => this.expectant.push(resolve));
  }

  send(message: PrimaryMessage): void {
    this.channel.send(message);
  }

  /**
   * Passes it descriptors that it has asked for; false when its socket is full, and nothing has
   * happened. Throws NativeError when it is gone.
   */
  pass(descriptors: readonly NumberedDescriptor[]): boolean {
    return sendNumbered(this.passage, descriptors);
  }

  /** Resolves when it has done all that it was told; never when it ends before. */
  load(): Promise<WorkerLoad> {
    return new Promise((resolve) => {
      this.askers.push(resolve);
      this.send({ kind: 'load' });
    });
  }

  /**
   * Hands over an accepted socket; our copy stays open until the worker says that it has its own.
   */
  hand(introduction: ClientIntroduction, handle: SocketHandle): void {
    this.clientCount++;
    this.handed++;
    this.clientPassage.add(introduction, handle);
  }

  /** Leaves the cluster, so that a successor is forked, and goes on serving its clients. */
  drain(seconds: number): void {
    if (this.current === 'draining' || this.current === 'gone') return;
    this.current = 'draining';
    this.send({ kind: 'drain', seconds, clients: this.handed });
    this.process.disconnect();
  }

  /** Ends a spare that will be given nothing to do, and that nothing takes the place of. */
  discard(): void {
    this.left = true;
    this.current = 'gone';
    this.kill();
  }

  kill(): void {
    this.process.process.kill('SIGKILL');
  }

  /** As `kill`, because it does not answer. */
  killHung(): void {
    this.wasHung = true;
    this.kill();
  }

  /** One of its clients is gone. */
  onClientGone(): void {
    this.clientCount--;
  }

  /** It has left the cluster: only one that drains still serves. */
  onLeft(): void {
    this.left = true;
    if (this.current !== 'draining') this.onGone();
  }

  /** The process is gone. */
  onGone(): void {
    this.current = 'gone';
    this.tellExpectant(false);
  }

  /**
   * Its process or its channel has ended. What it said last must have been read before its clients
   * are given to others.
   */
  private onPartEnded(): void {
    if (++this.endedParts < 2) return;
    this.clientPassage.end();
    this.events.onEnd(this, this.how);
  }

  private onMessage(message: WorkerMessage): void {
    this.aliveAt = performance.now();
    switch (message.kind) {
      case 'alive':
        this.reported = message.utilisation;
        return;
      case 'load':
        this.askers.shift()?.(message);
        return;
      case 'ready':
        this.onReady();
        return;
      case 'taken':
        this.clientPassage.onTaken(message.id);
        break;
      case 'descriptors':
        this.lacksDescriptors = message.areScarce;
        break;
      default:
    }
    this.events.onNews(this, message);
  }

  private onReady(): void {
    if (this.current !== 'starting') return;
    this.current = 'ready';
    this.events.onReady(this);
    this.tellExpectant(true);
  }

  private tellExpectant(isReady: boolean): void {
    for (const tell of this.expectant.splice(0)) tell(isReady);
  }
}
