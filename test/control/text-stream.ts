import type { ByteStream, StreamListener } from '../../lib/transport/byte-stream.js';

/** The stream of a control channel: keeps what is written, and says what the test has it say. */
export class TextStream implements ByteStream {
  readonly isLeft = false;
  readonly passage = null;
  readonly separatesFrames = false;
  /** What the other end has taken, write by write. */
  readonly taken: string[] = [];
  isDestroyed = false;
  private stuck: Buffer[] | null = null;
  private listener: StreamListener | null = null;

  get queuedBytes(): number {
    return Buffer.concat(this.stuck ?? []).length;
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
  }

  write(bytes: Buffer): void {
    if (this.stuck === null) this.taken.push(bytes.toString('utf8'));
    else this.stuck.push(Buffer.from(bytes));
  }

  /** The other end takes nothing from now on. */
  stick(): void {
    this.stuck = [];
  }

  /** It takes what has waited, and all that comes. */
  release(): void {
    const waited = this.stuck ?? [];
    this.stuck = null;
    for (const bytes of waited) this.write(bytes);
    this.listener?.drained();
  }

  /** The other end sends this. */
  arrive(bytes: Buffer | string): void {
    const buffer = Buffer.from(bytes);
    this.listener?.bytes(buffer, buffer.length);
  }

  /** The other end is gone. */
  leave(): void {
    this.listener?.closed(null);
  }

  pause(): void {
    // Nobody does.
  }

  resume(): void {
    // Nobody does.
  }

  end(): void {
    this.destroy();
  }

  destroy(): void {
    this.listener = null;
    this.stuck = null;
    this.isDestroyed = true;
  }
}
