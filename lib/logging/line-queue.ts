/** The way to where lines are kept. Nothing here ever waits for the other side. */
export interface Carrier {
  /**
   * Whether several lines may go at once; otherwise every line goes on its own, as a datagram does.
   */
  readonly joins: boolean;
  /**
   * Hands `bytes` over and calls `done`, now or later, with how many were taken: 0 when the other
   * side takes none at the moment. `error` is the system's.
   */
  send(bytes: Buffer, done: (error: NodeJS.ErrnoException | null, taken: number) => void): void;
  /** The same at once, for the last moments of a process. Throws the system's error. */
  sendNow(bytes: Buffer): number;
  close(): void;
}

export interface QueueEvents {
  /** Lines do not get through any more; told once until they do. */
  readonly failing: (error: NodeJS.ErrnoException) => void;
  /**
   * All that waited got through, `lost` lines had been dropped; a line pushed now stands where they
   * are missing.
   */
  readonly recovered: (lost: number) => void;
}

/** Bytes that wait for a slow or broken receiver; what comes beyond is dropped. */
export const maxQueued = 4 * 1024 * 1024;

/** Bytes handed over at a time. */
const batchSize = 64 * 1024;

/** Milliseconds until a receiver that fails is tried again. */
const errorInterval = 1000;

/** The same for one that takes nothing; doubled each time up to the second of them. */
const fullIntervals = { first: 1, last: 100 } as const;

/** Milliseconds that a process that ends spends on a slow reader. */
const lastPatience = 500;

/**
 * Lines on their way to one receiver. After a first line had no room all further ones are dropped
 * until the queue is empty, so that there is one gap, and one report of it.
 */
export class LineQueue {
  private lines: Buffer[] = [];
  private queued = 0;
  private lost = 0;
  private total = 0;
  /** A send is due, under way, or waits for its next try. */
  private busy = false;
  /** Lines of the send under way. */
  private sending = 0;
  private failing = false;
  private fullInterval: number = fullIntervals.first;

  constructor(
    private readonly carrier: Carrier,
    private readonly events: QueueEvents,
  ) {}

  /** Lines dropped so far. */
  get drops(): number {
    return this.total;
  }

  push(line: Buffer): void {
    if (this.lost > 0 || this.queued + line.length > maxQueued) {
      this.drop();
      return;
    }
    this.add(line);
    if (this.busy) return;
    this.busy = true;
    setImmediate(() => this.send());
  }

  /**
   * Hands over what waits without returning to the event loop; gives up on a receiver that fails or
   * stays full.
   */
  flush(patience = lastPatience): void {
    // What is under way is with the kernel, or with a thread that gets it there.
    this.take(this.sending);
    this.sending = 0;
    const deadline = performance.now() + patience;
    try {
      while (this.lines.length > 0) {
        const [bytes] = this.batch();
        const taken = this.carrier.sendNow(bytes);
        this.taken(taken);
        if (taken > 0) continue;
        if (performance.now() >= deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    } catch {
      // It cannot be saved.
    }
  }

  /** Gives the receiver what it takes at once. */
  close(): void {
    this.flush(0);
    this.lines = [];
    this.carrier.close();
  }

  private send(): void {
    if (this.lines.length === 0 && this.lost > 0) {
      const { lost } = this;
      this.lost = 0;
      this.events.recovered(lost);
    }
    if (this.lines.length === 0) {
      this.busy = false;
      return;
    }
    const [bytes, count] = this.batch();
    this.sending = count;
    this.carrier.send(bytes, (error, taken) => {
      this.sending = 0;
      this.sent(error, taken);
    });
  }

  private sent(error: NodeJS.ErrnoException | null, taken: number): void {
    this.taken(taken);
    if (error !== null) {
      if (error.code === 'EMSGSIZE') this.refuseFirst();
      else this.failed(error);
    } else if (taken === 0) {
      this.tryLater(this.fullInterval);
      this.fullInterval = Math.min(2 * this.fullInterval, fullIntervals.last);
    } else {
      this.failing = false;
      this.fullInterval = fullIntervals.first;
      setImmediate(() => this.send());
    }
  }

  private failed(error: NodeJS.ErrnoException): void {
    this.tryLater(errorInterval);
    if (this.failing) return;
    this.failing = true;
    this.events.failing(error);
  }

  /** The receiver will never take the first line. */
  private refuseFirst(): void {
    this.take(1);
    this.drop();
    setImmediate(() => this.send());
  }

  private tryLater(delay: number): void {
    setTimeout(() => this.send(), delay).unref();
  }

  private add(line: Buffer): void {
    this.lines.push(line);
    this.queued += line.length;
  }

  private drop(): void {
    this.lost++;
    this.total++;
  }

  /** The next bytes to send and the number of lines they are of. */
  private batch(): [bytes: Buffer, count: number] {
    let count = 0;
    let length = 0;
    for (const line of this.lines) {
      if (count > 0 && (!this.carrier.joins || length + line.length > batchSize)) break;
      length += line.length;
      count++;
    }
    return [Buffer.concat(this.lines.slice(0, count)), count];
  }

  /** Forgets so many bytes, which may end within a line. */
  private taken(bytes: number): void {
    let count = 0;
    let rest = bytes;
    for (const line of this.lines) {
      if (line.length > rest) break;
      rest -= line.length;
      count++;
    }
    this.take(count);
    const first = this.lines[0];
    if (rest === 0 || first === undefined) return;
    this.lines[0] = first.subarray(rest);
    this.queued -= rest;
  }

  private take(count: number): void {
    for (const { length } of this.lines.splice(0, count)) this.queued -= length;
  }
}
