import type { LoginStage } from '../../control/messages.js';
import { hasUnread } from '../../native/peek.js';

/** Milliseconds between two words to the primary about a client that stays at its stage. */
const tellingInterval = 1000;

/** A client's socket: its number, or node's handle of it, whose types do not name its counts. */
export interface CountingSocket {
  readonly fd: number;
  /** Bytes written to the socket so far, TLS records included. */
  readonly bytesWritten?: number;
}

/**
 * How far a client has come that has not logged in, whether it or we have to go on, and since when.
 */
export class Turn {
  private currentStage: LoginStage = 'silent';
  /**
   * Milliseconds of `performance.now()` since when it is the client's turn; null when it is ours.
   */
  private since: number | null = performance.now();
  private written = 0;
  private toldAt = -Infinity;

  /**
   * `tell` is called when the client has gone on, at once at a new stage and else no more often
   * than it matters.
   */
  constructor(
    private readonly socket: CountingSocket,
    private readonly tell: () => void,
  ) {}

  get stage(): LoginStage {
    return this.currentStage;
  }

  /** Whether bytes of the client wait to be read. */
  get hasUnread(): boolean {
    return hasUnread(this.socket.fd);
  }

  /** All that the next step takes has come: the client waits for us. */
  ours(): void {
    this.since = null;
  }

  /** Our answer is out, or there is none: the client has to go on. */
  theirs(stage: LoginStage): void {
    const now = performance.now();
    this.since = now;
    this.written = this.socket.bytesWritten ?? 0;
    if (stage === this.currentStage && now - this.toldAt < tellingInterval) return;
    this.currentStage = stage;
    this.toldAt = now;
    this.tell();
  }

  /** Milliseconds for which it has been the client's turn, 0 when it is ours. */
  silentFor(): number {
    if (this.since === null) return 0;
    const written = this.socket.bytesWritten ?? 0;
    // In the middle of a handshake OpenSSL answers by itself, and only to what is a step forward.
    if (this.currentStage === 'handshake' && written > this.written) {
      this.written = written;
      this.since = performance.now();
    }
    return performance.now() - this.since;
  }
}
