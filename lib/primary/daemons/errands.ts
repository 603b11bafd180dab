import type { Logger } from '../../logging/logger.js';
import { closeDescriptors } from '../../native/descriptors.js';
import { NativeError } from '../../native/error.js';
import { connectToPath } from '../../native/unix-connection.js';
import type { NumberedDescriptor } from '../../transport/numbered-descriptors.js';
import type { WorkerProcess } from '../workers/worker-process.js';

/** A socket that a worker may have. */
export interface Errand {
  readonly number: number;
  readonly path: string;
}

/**
 * How many connections are opened in one turn of the event loop, and passed in one message: all
 * others wait their turn.
 */
const atOnce = 32;

/** Milliseconds between attempts to pass what a worker does not take. */
const retryInterval = 5;

/**
 * The most errands that may wait. A worker takes sockets as fast as they come and asks for a few at
 * a time for each client, so that one that lets more come together is out of order.
 */
const mostWaiting = 100_000;

/**
 * What is to be connected to for one worker. Connecting takes no time: a UNIX socket is connected
 * at once or not at all, so that a daemon that hangs holds up nobody. No more is opened while the
 * worker has not taken what was.
 */
export class Errands {
  private waiting: Errand[] = [];
  /** Connected, and not passed yet. */
  private connected: NumberedDescriptor[] = [];
  private soon: NodeJS.Immediate | null = null;
  private retry: NodeJS.Timeout | null = null;

  constructor(
    private readonly worker: Pick<WorkerProcess, 'pid' | 'pass' | 'send' | 'kill'>,
    private readonly log: Logger,
  ) {}

  /** What is added in one turn of the event loop is done at its end. */
  add(errand: Errand): void {
    if (this.waiting.length >= mostWaiting) {
      const { pid } = this.worker;
      this.log.error(`worker ${pid} asks for daemons' sockets and takes none: killing it`);
      this.end();
      this.worker.kill();
      return;
    }
    this.waiting.push(errand);
    if (this.retry === null) this.soon ??= setImmediate(() => this.advance());
  }

  /** The worker is gone. */
  end(): void {
    if (this.soon !== null) clearImmediate(this.soon);
    if (this.retry !== null) clearTimeout(this.retry);
    this.soon = this.retry = null;
    this.waiting = [];
    closeDescriptors(this.connected.splice(0).map(({ descriptor }) => descriptor));
  }

  private advance(): void {
    this.soon = this.retry = null;
    if (this.connected.length === 0) this.connectSome();
    if (!this.passConnected()) this.retry = setTimeout(() => this.advance(), retryInterval);
    else if (this.waiting.length > 0) this.soon = setImmediate(() => this.advance());
  }

  private connectSome(): void {
    for (const { number, path } of this.waiting.splice(0, atOnce)) {
      try {
        this.connected.push({ number, descriptor: connectToPath(path) });
      } catch (error) {
        if (!(error instanceof NativeError)) throw error;
        this.worker.send({ kind: 'unconnected', number, code: error.code });
      }
    }
  }

  /** False when the worker has to take earlier ones first. */
  private passConnected(): boolean {
    if (this.connected.length === 0) return true;
    try {
      if (!this.worker.pass(this.connected)) return false;
      closeDescriptors(this.connected.splice(0).map(({ descriptor }) => descriptor));
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      // It is gone, or as good as.
      this.end();
      this.worker.kill();
    }
    return true;
  }
}
