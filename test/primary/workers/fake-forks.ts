import type { Worker as ClusterWorker } from 'node:cluster';
import { EventEmitter } from 'node:events';
import { createInterface } from 'node:readline';
import { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import type { PrimaryMessage, WorkerMessage } from '../../../lib/control/messages.js';
import type { WorkerUser } from '../../../lib/control/workers.js';
import { socketPair } from '../../native/sockets.js';
import type { ForkEvents, Forks } from '../../../lib/primary/workers/forks.js';

/**
 * A worker process that only exists as its pipes; it is ready as soon as it is configured, if
 * it is obedient.
 */
export class FakeProcess {
  readonly received: PrimaryMessage[] = [];
  readonly cluster: ClusterWorker;
  private readonly child = new EventEmitter();
  private readonly channel: Socket;
  private readonly passages: readonly Socket[];
  private connected = true;

  constructor(
    private readonly events: () => ForkEvents,
    readonly pid: number,
    readonly user: WorkerUser | null,
    isObedient: boolean,
  ) {
    const [control, daemons, clients] = [connectedPair(), connectedPair(), connectedPair()];
    this.channel = control.near;
    this.passages = [daemons.near, clients.near];
    createInterface({ input: this.channel }).on('line', (line) => {
      const message = JSON.parse(line) as PrimaryMessage;
      this.received.push(message);
      if (message.kind === 'configure' && isObedient) this.say({ kind: 'ready' });
    });
    const stdio = [null, null, new PassThrough(), null, control.far, daemons.far, clients.far];
    this.cluster = Object.assign(new EventEmitter(), {
      process: Object.assign(this.child, { pid, stdio, kill: () => this.die('SIGKILL') }),
      disconnect: () => this.leave(),
    }) as unknown as ClusterWorker;
  }

  /** Ids of the clients it was handed. */
  get handed(): number[] {
    return this.received.flatMap((message) => (message.kind === 'client' ? [message.id] : []));
  }

  say(message: WorkerMessage): void {
    this.channel.write(`${JSON.stringify(message)}\n`);
  }

  /** The process ends; true as `kill` of a process that there is. */
  die(signal: string | null = null): boolean {
    setImmediate(() => {
      this.leave();
      for (const socket of [this.channel, ...this.passages]) socket.destroy();
      this.child.emit('close', 0, signal);
    });
    return true;
  }

  private leave(): void {
    if (!this.connected) return;
    this.connected = false;
    setImmediate(() => this.events().onDisconnect(this.cluster));
  }
}

function connectedPair(): { readonly near: Socket; readonly far: Socket } {
  const [near, far] = socketPair();
  return { near: new Socket({ fd: near }), far: new Socket({ fd: far }) };
}

/** Forks that make fake processes, and count from pid 1. */
export class FakeForks implements Forks {
  readonly processes: FakeProcess[] = [];
  /** Whether processes become ready when they are configured. */
  areObedient = true;
  isStopped = false;
  private events: ForkEvents | null = null;

  start(count: number, user: WorkerUser | null, events: ForkEvents): Promise<void> {
    this.events = events;
    for (let index = 0; index < count; index++) this.fork(user);
    return Promise.resolve();
  }

  fork(user: WorkerUser | null): ClusterWorker {
    const events = (): ForkEvents => this.events!;
    const process = new FakeProcess(events, this.processes.length + 1, user, this.areObedient);
    this.processes.push(process);
    // As the cluster module does.
    setImmediate(() => events().onFork(process.cluster));
    return process.cluster;
  }

  replace(user: WorkerUser | null): void {
    if (!this.isStopped) this.fork(user);
  }

  stop(): void {
    this.isStopped = true;
  }
}
