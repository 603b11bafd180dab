/** Longest time without clients in seconds: what a timer of node's can wait. */
export const maxIdleSeconds = 2_147_483;

/** Whom a clock serves. */
export interface Idleness {
  /** Whether nobody is there. */
  isIdle(): boolean;
  /** Nobody has been there for `seconds`. Told again and again. */
  onIdle(seconds: number): void;
}

/** Tells when there has been nobody for a while. */
export class IdleClock {
  private timer: NodeJS.Timeout | null = null;
  private idleness: Idleness | null = null;

  /** `seconds`: 0 for never, else at most `maxIdleSeconds`. */
  constructor(private seconds: number) {}

  start(idleness: Idleness): void {
    this.idleness = idleness;
    this.restart();
  }

  /** Changes the time, which starts anew. */
  set(seconds: number): void {
    this.seconds = seconds;
    this.restart();
  }

  /** Begins to count anew, if nobody is there: somebody has come or gone. */
  restart(): void {
    const { seconds, idleness } = this;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    if (seconds === 0 || idleness?.isIdle() !== true) return;
    this.timer = setTimeout(() => idleness.onIdle(seconds), seconds * 1000);
  }

  /** For good. */
  stop(): void {
    this.idleness = null;
    this.restart();
  }
}
