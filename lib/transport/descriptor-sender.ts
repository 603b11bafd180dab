import { sendWithDescriptors } from '../native/descriptor-passing.js';
import { closeDescriptors } from '../native/descriptors.js';
import { NativeError } from '../native/error.js';

/** The socket's side, as the sender sees it. */
export interface DescriptorCarrier {
  /** The socket's number, or -1 when it is closed. */
  readonly fd: number;
  /** Bytes written that the kernel has not taken yet. */
  readonly unsentBytes: number;
  write(bytes: Buffer): void;
  /** All that waited has been written. */
  drained(): void;
  /** The socket is of no use any more. */
  failed(error: Error): void;
}

/**
 * What a waiting descriptor counts as, so that those who look at the queue stop long before a
 * thousand wait.
 */
const descriptorWeight = 4096;

/**
 * Milliseconds between attempts to send to a full socket: the first, doubled each time, and the
 * longest.
 */
const shortestPause = 1;
const longestPause = 64;

const marker = Buffer.alloc(1);

/**
 * Descriptors on their way into a socket, and the bytes that must not overtake them. A descriptor
 * is sent when all bytes before it are with the kernel. libuv does not tell when that, or room in
 * the socket, comes about without having bytes to write, so it is looked for in growing intervals.
 */
export class DescriptorSender {
  private queue: (Buffer | number[])[] = [];
  private waiting = 0;
  private pause = shortestPause;
  private timer: NodeJS.Timeout | null = null;

  constructor(private readonly carrier: DescriptorCarrier) {}

  /** Whether bytes must go through `write` now. */
  get isBusy(): boolean {
    return this.queue.length > 0;
  }

  get queuedBytes(): number {
    return this.waiting;
  }

  /** The descriptors are closed when they have been sent, or cannot be. */
  send(descriptors: number[]): void {
    this.waiting += descriptors.length * descriptorWeight;
    this.queue.push([...descriptors]);
    if (this.timer === null) this.advance();
  }

  /** Queues bytes; they belong to the sender from now on. */
  write(bytes: Buffer): void {
    this.waiting += bytes.length;
    this.queue.push(bytes);
  }

  /** Drops what waits. */
  discard(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    for (const item of this.queue) if (!Buffer.isBuffer(item)) closeDescriptors(item);
    this.queue = [];
    this.waiting = 0;
  }

  private advance(): void {
    const { carrier } = this;
    for (let item = this.queue[0]; item !== undefined; item = this.queue[0]) {
      if (Buffer.isBuffer(item)) {
        this.waiting -= item.length;
        carrier.write(item);
      } else if (!this.sendAll(item)) {
        this.wait();
        return;
      }
      this.queue.shift();
    }
  }

  /** False when some are left because the socket is full. */
  private sendAll(descriptors: number[]): boolean {
    const { carrier } = this;
    try {
      for (let next = descriptors[0]; next !== undefined; next = descriptors[0]) {
        if (carrier.unsentBytes > 0) return false;
        if (sendWithDescriptors(carrier.fd, marker, [next]) === 'would-block') return false;
        descriptors.shift();
        this.waiting -= descriptorWeight;
        closeDescriptors([next]);
      }
      return true;
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      // Too many of this user's are on their way through sockets: as transient as a full one.
      if (error.code === 'ETOOMANYREFS') return false;
      this.discard();
      carrier.failed(error);
      return true;
    }
  }

  private wait(): void {
    this.timer = setTimeout(() => {
      this.timer = null;
      this.advance();
      if (this.isBusy) return;
      this.pause = shortestPause;
      this.carrier.drained();
    }, this.pause);
    this.pause = Math.min(this.pause * 2, longestPause);
  }
}
