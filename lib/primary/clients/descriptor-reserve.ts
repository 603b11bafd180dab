import type { Logger } from '../../logging/logger.js';
import { Tally } from '../../logging/tally.js';
import { areScarce, isScarce, raiseOpenFilesLimit } from '../../native/descriptors.js';

/** Descriptors kept for administrators, new workers and the log. */
const reserved = 48;

/** Milliseconds between checks whether there are more. */
const checkInterval = 50;

/** Descriptors beside the clients' own: listeners, workers' pipes, log. */
const spare = 64;

/** What is done about scarce descriptors. */
export interface DescriptorRelief {
  /** Accepted connections that no worker has a place for. */
  queueLength(): number;
  /** Accept no more clients. */
  pause(): void;
  /** Accept clients again. */
  resume(): void;
}

/**
 * Lets clients wait in the kernel while few descriptors are left, so that administrators are still
 * let in.
 */
export class DescriptorReserve {
  private paused = false;
  /** Connections that may wait, once it is known for how many there are descriptors. */
  private longestQueue = Infinity;
  private readonly scarcity: Tally;

  constructor(
    private readonly relief: DescriptorRelief,
    log: Logger,
  ) {
    this.scarcity = new Tally((count) => {
      log.warning(
        `too few descriptors are left (${count} times so far): new clients wait; ` +
          'raise the limit of open files (LimitNOFILE=, ulimit -Hn)',
      );
    });
  }

  /** Whether no clients are to be accepted for now. */
  get isExhausted(): boolean {
    return this.paused;
  }

  /** A connection was accepted and has got the descriptor `fd`. */
  onDescriptor(fd: number): void {
    if (this.paused) return;
    const queue = this.relief.queueLength();
    if (queue >= this.longestQueue || isScarce(fd, reserved)) this.pause(queue);
  }

  /** A worker has too few. */
  onWorkerScarcity(): void {
    this.scarcity.add();
  }

  private pause(queue: number): void {
    this.paused = true;
    this.scarcity.add();
    this.relief.pause();
    // From the second time on numbers tell too little: what was closed meanwhile left low ones
    // free.
    this.longestQueue = Math.min(this.longestQueue, queue);
    const checking = setInterval(() => {
      const left = this.relief.queueLength();
      if (left > this.longestQueue / 2 || areScarce(reserved)) return;
      if (left === 0) this.longestQueue = Infinity;
      clearInterval(checking);
      this.paused = false;
      this.relief.resume();
    }, checkInterval).unref();
  }
}

/**
 * Raises the limit of open files as far as it goes, and warns when that is not far enough for
 * `maxClients`.
 */
export function raiseLimitFor(maxClients: number, log: Logger): void {
  const { soft } = raiseOpenFilesLimit();
  // A worker may have all clients, and a client two or more daemons.
  const needed = BigInt(3 * maxClients + spare);
  if (soft >= needed) return;
  log.warning(
    `the limit of open files, ${soft}, is too low for max_clients (${maxClients}): ${needed} may be needed; ` +
      'raise it (LimitNOFILE=, ulimit -Hn) or lower max_clients',
  );
}
