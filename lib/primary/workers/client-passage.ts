import type { Socket } from 'node:net';
import type { ClientIntroduction } from '../../control/messages.js';
import type { SocketHandle } from '../../transport/node-socket.js';
import { sendNumbered, type NumberedDescriptor } from '../../transport/numbered-descriptors.js';
import { Passage, type PassageSource } from './passage.js';

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
export class ClientPassage implements PassageSource {
  private waiting: Passing[] = [];
  /** Those whose turn it is. */
  private leaving: Passing[] = [];
  /** Ids of those that were passed and that the worker has not said that it has. */
  private readonly underWay = new Set<number>();
  private readonly passage: Passage;

  /**
   * `introduce` tells the worker whose socket comes; `onBroken` is called when it can have none any
   * more.
   */
  constructor(
    socket: Socket,
    private readonly introduce: (introduction: ClientIntroduction) => void,
    readonly onBroken: () => void,
  ) {
    this.passage = new Passage((descriptors) => sendNumbered(socket, descriptors), this);
  }

  /** Clients that the worker has not said that it has. */
  get size(): number {
    return this.waiting.length + this.leaving.length + this.underWay.size;
  }

  /** Our copy stays open. One that is closed before its turn is not passed. */
  add(introduction: ClientIntroduction, handle: SocketHandle): void {
    this.waiting.push({ introduction, handle });
    if (this.room > 0) this.passage.wake();
  }

  /** The worker says that it has one of them. */
  onTaken(id: number): void {
    if (this.underWay.delete(id) && this.waiting.length > 0) this.passage.wake();
  }

  /** The worker is gone. */
  end(): void {
    this.passage.end();
    this.waiting = [];
    this.leaving = [];
  }

  next(): readonly NumberedDescriptor[] {
    // The number of a closed handle is -1, and what it had been may be another's by now.
    this.leaving = this.leaving.filter(({ handle }) => handle.fd >= 0);
    while (this.leaving.length < this.room) {
      const passing = this.waiting.shift();
      if (passing === undefined) break;
      if (passing.handle.fd >= 0) this.leaving.push(passing);
    }
    return this.leaving.map(({ introduction, handle }) => ({
      number: introduction.id,
      descriptor: handle.fd,
    }));
  }

  onPassed(): void {
    for (const { introduction } of this.leaving.splice(0)) {
      this.underWay.add(introduction.id);
      this.introduce(introduction);
    }
  }

  /** How many more may be on their way. */
  private get room(): number {
    return mostUnderWay - this.underWay.size;
  }
}
