import type { Logger } from '../../logging/logger.js';
import { closeDescriptors } from '../../native/descriptors.js';
import { NativeError } from '../../native/error.js';
import { connectToPath } from '../../native/unix-connection.js';
import type { NumberedDescriptor } from '../../transport/numbered-descriptors.js';
import { Passage, type PassageSource } from '../workers/passage.js';
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
export class Errands implements PassageSource {
  private waiting: Errand[] = [];
  /** Connected, and not passed yet. */
  private connected: NumberedDescriptor[] = [];
  private readonly passage: Passage;

  constructor(
    private readonly worker: Pick<WorkerProcess, 'pid' | 'pass' | 'send' | 'kill'>,
    private readonly log: Logger,
  ) {
    this.passage = new Passage((descriptors) => worker.pass(descriptors), this);
  }

  /** What is added in one turn of the event loop is done at its end. */
  add(errand: Errand): void {
    if (this.waiting.length >= mostWaiting) {
      const { pid } = this.worker;
      this.log.error(`worker ${pid} asks for daemons' sockets and takes none: killing it`);
      this.onBroken();
      return;
    }
    this.waiting.push(errand);
    this.passage.wake();
  }

  /** The worker is gone. */
  end(): void {
    this.passage.end();
    this.waiting = [];
    this.closeConnected();
  }

  next(): readonly NumberedDescriptor[] {
    if (this.connected.length === 0) this.connectSome();
    // Where none could be connected the others have the next turn.
    if (this.connected.length === 0 && this.waiting.length > 0) this.passage.wake();
    return this.connected;
  }

  onPassed(): void {
    this.closeConnected();
    if (this.waiting.length > 0) this.passage.wake();
  }

  onBroken(): void {
    this.end();
    this.worker.kill();
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

  private closeConnected(): void {
    closeDescriptors(this.connected.splice(0).map(({ descriptor }) => descriptor));
  }
}
