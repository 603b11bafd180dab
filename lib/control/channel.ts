import type { ByteStream, StreamListener } from '../transport/byte-stream.js';

/** A message longer than this many bytes cannot be ours. */
const maxMessageLength = 16 * 1024 * 1024;

const newline = 0x0a;

/**
 * Typed messages, one JSON value a line, over a stream. It outlives node's own IPC channel, which a
 * worker gives up when it begins to drain.
 */
export class ControlChannel<Sent, Received> implements StreamListener {
  /** The beginning of a line, in pieces. */
  private partial: Buffer[] = [];
  private partialLength = 0;
  /** Lines that wait for each other. */
  private waiting = '';
  private waitingBytes = 0;
  private turnEnd: NodeJS.Immediate | null = null;
  /** Those that wait until the kernel has all. */
  private flushing: (() => void)[] = [];
  private isClosed = false;

  /** `onClosed` is called once, when the other end is gone or has sent what is no message. */
  constructor(
    private readonly stream: ByteStream,
    private readonly onMessage: (message: Received) => void,
    private readonly onClosed: () => void,
  ) {
    stream.listen(this);
  }

  /** Bytes that the other end has not taken yet. */
  get queuedBytes(): number {
    return this.stream.queuedBytes + this.waitingBytes;
  }

  /**
   * All that is sent in one turn of the event loop leaves in one write at its end: each costs a
   * system call, and wakes the other end. Messages to a closed channel are dropped: the other end
   * is gone.
   */
  send(message: Sent): void {
    if (this.isClosed) return;
    const line = JSON.stringify(message) + '\n';
    this.waiting += line;
    this.waitingBytes += Buffer.byteLength(line);
    this.turnEnd ??= setImmediate(() => this.write());
  }

  /** Calls `done` once all messages sent so far are with the kernel, or will never be. */
  flush(done: () => void): void {
    this.write();
    if (this.stream.queuedBytes === 0) done();
    else this.flushing.push(done);
  }

  /** Closes at once, without telling anybody. */
  close(): void {
    this.isClosed = true;
    this.takeWaiting();
    this.stream.destroy();
    this.drained();
  }

  // The stream

  bytes(buffer: Buffer, length: number): void {
    const end = buffer.lastIndexOf(newline, length - 1) + 1;
    // All in text before any is told: whoever is told may have the buffer filled anew.
    const lines = end === 0 ? [] : this.textUpTo(buffer, end).split('\n');
    if (end < length) this.keep(Buffer.from(buffer.subarray(end, length)));
    for (const line of lines) {
      if (this.isClosed) return;
      if (line === '') continue;
      const message = parsed(line);
      if (message === null) this.closed();
      else this.onMessage(message as Received);
    }
  }

  drained(): void {
    for (const done of this.flushing.splice(0)) done();
  }

  closed(): void {
    this.close();
    this.onClosed();
  }

  private write(): void {
    const lines = this.takeWaiting();
    if (lines !== '') this.stream.write(Buffer.from(lines));
  }

  private takeWaiting(): string {
    if (this.turnEnd !== null) clearImmediate(this.turnEnd);
    this.turnEnd = null;
    const lines = this.waiting;
    this.waiting = '';
    this.waitingBytes = 0;
    return lines;
  }

  private textUpTo(buffer: Buffer, end: number): string {
    if (this.partialLength === 0) return buffer.toString('utf8', 0, end);
    const whole = Buffer.concat([...this.partial, buffer.subarray(0, end)]);
    this.partial = [];
    this.partialLength = 0;
    return whole.toString('utf8');
  }

  private keep(piece: Buffer): void {
    this.partial.push(piece);
    this.partialLength += piece.length;
    if (this.partialLength > maxMessageLength) this.closed();
  }
}

/** A line as the object that it is; null when it is none. */
function parsed(line: string): object | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
