import type { Duplex } from 'node:stream';

/** A message longer than this many bytes cannot be ours. */
const maxMessageLength = 16 * 1024 * 1024;

const newline = 0x0a;

/**
 * Typed messages, one JSON value a line, over a duplex pipe. It outlives node's own IPC channel,
 * which a worker gives up when it begins to drain.
 */
export class ControlChannel<Sent, Received> {
  private partial: Buffer[] = [];
  private partialLength = 0;
  /** Lines that wait for each other. */
  private waiting = '';
  private waitingBytes = 0;
  private turnEnd: NodeJS.Immediate | null = null;

  /** `onClosed` is called once, when the other end is gone or has sent what is no message. */
  constructor(
    private readonly pipe: Duplex,
    private readonly onMessage: (message: Received) => void,
    private readonly onClosed: () => void,
  ) {
    let told = false;
    const closed = (): void => {
      if (told) return;
      told = true;
      this.onClosed();
    };
    pipe.on('data', (chunk: Buffer) => this.received(chunk));
    pipe.on('end', closed);
    pipe.on('close', closed);
    pipe.on('error', closed);
  }

  /** Bytes that the other end has not taken yet. */
  get queuedBytes(): number {
    return this.pipe.writableLength + this.waitingBytes;
  }

  /**
   * All that is sent in one turn of the event loop leaves in one write at its end: each costs two
   * system calls, and wakes the other end. Messages to a closed channel are dropped: the other end
   * is gone.
   */
  send(message: Sent): void {
    const line = JSON.stringify(message) + '\n';
    this.waiting += line;
    this.waitingBytes += Buffer.byteLength(line);
    this.turnEnd ??= setImmediate(() => this.write());
  }

  /** Calls `done` once all messages sent so far are with the kernel. */
  flush(done: () => void): void {
    this.write();
    if (this.pipe.writable) this.pipe.write('', () => done());
    else done();
  }

  close(): void {
    if (this.turnEnd !== null) clearImmediate(this.turnEnd);
    this.pipe.destroy();
  }

  private write(): void {
    if (this.turnEnd !== null) clearImmediate(this.turnEnd);
    this.turnEnd = null;
    const lines = this.waiting;
    this.waiting = '';
    this.waitingBytes = 0;
    if (lines !== '' && this.pipe.writable) this.pipe.write(lines);
  }

  private received(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      this.partial.push(chunk.subarray(start, end));
      const line = Buffer.concat(this.partial).toString('utf8');
      this.partial = [];
      this.partialLength = 0;
      start = end + 1;
      if (line === '') continue;
      const message = parsed(line);
      if (message === null) {
        this.pipe.destroy();
        return;
      }
      this.onMessage(message as Received);
    }
    if (start === chunk.length) return;
    this.partial.push(chunk.subarray(start));
    this.partialLength += chunk.length - start;
    if (this.partialLength > maxMessageLength) this.pipe.destroy();
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
