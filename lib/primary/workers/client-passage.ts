import type { Socket } from 'node:net';
import type { ClientIntroduction } from '../../control/messages.js';
import { NativeError } from '../../native/error.js';
import type { SocketHandle } from '../../transport/node-socket.js';
import { sendNumbered } from '../../transport/numbered-descriptors.js';

/** Milliseconds between attempts to pass what a worker does not take. */
const retryInterval = 5;

/**
 * How many clients may be on their way to a worker. When thousands come at the same time it takes
 * so many in one turn of its event loop, and serves those it has in between: with more, turns are
 * longer and nothing is gained.
 */
export const mostUnderWay = 2;

interface Passing {
  readonly introduction: ClientIntroduction;
  readonly handle: SocketHandle;
}

/**
 * Clients' sockets on their way to one worker, with the clients' ids as their numbers. Those of one
 * turn of the event loop leave together at its end.
 */
export class ClientPassage {
  private waiting: Passing[] = [];
  /** Ids of those that were passed and that the worker has not said that it has. */
  private readonly underWay = new Set<number>();
  private soon: NodeJS.Immediate | null = null;
  private retry: NodeJS.Timeout | null = null;

  /**
   * `introduce` tells the worker whose socket comes; `broken` is called when it can have none any
   * more.
   */
  constructor(
    private readonly socket: Socket,
    private readonly introduce: (introduction: ClientIntroduction) => void,
    private readonly broken: () => void,
  ) {}

  /** Clients that the worker has not said that it has. */
  get size(): number {
    return this.waiting.length + this.underWay.size;
  }

  /** Our copy stays open. One that is closed before its turn is not passed. */
  add(introduction: ClientIntroduction, handle: SocketHandle): void {
    this.waiting.push({ introduction, handle });
    this.goOn();
  }

  /** The worker says that it has one of them. */
  onTaken(id: number): void {
    if (this.underWay.delete(id)) this.goOn();
  }

  /** The worker is gone. */
  end(): void {
    if (this.soon !== null) clearImmediate(this.soon);
    if (this.retry !== null) clearTimeout(this.retry);
    this.soon = this.retry = null;
    this.waiting = [];
  }

  private goOn(): void {
    if (this.retry !== null || this.waiting.length === 0) return;
    if (this.underWay.size >= mostUnderWay) return;
    this.soon ??= setImmediate(() => this.send());
  }

  private send(): void {
    this.soon = this.retry = null;
    const room = mostUnderWay - this.underWay.size;
    const next: Passing[] = [];
    let looked = 0;
    for (const passing of this.waiting) {
      if (next.length === room) break;
      looked++;
      // The number of a closed handle is -1, and what it had been may be another's by now.
      if (passing.handle.fd >= 0) next.push(passing);
    }
    if (!this.pass(next)) {
      this.retry = setTimeout(() => this.send(), retryInterval);
      return;
    }
    this.waiting.splice(0, looked);
    for (const { introduction } of next) {
      this.underWay.add(introduction.id);
      this.introduce(introduction);
    }
  }

  /** False when the worker has to take earlier ones first. */
  private pass(passings: readonly Passing[]): boolean {
    if (passings.length === 0) return true;
    const sockets = passings.map(({ introduction, handle }) => ({
      number: introduction.id,
      descriptor: handle.fd,
    }));
    try {
      return sendNumbered(this.socket, sockets);
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      this.broken();
      return true;
    }
  }
}
