/** Longest time without clients in seconds: what a timer of node's can wait. */
export const maxIdleSeconds = 2_147_483;

/** Tells when there has been nobody for a while. */
export class IdleClock {
  private timer: NodeJS.Timeout | null = null;
  private stopped = false;

  /** `seconds`: 0 for never, else at most `maxIdleSeconds`. `onIdle` may be called again and again. */
  constructor(
    private seconds: number,
    private readonly isIdle: () => boolean,
    private readonly onIdle: (seconds: number) => void,
  ) {}

  /** Changes the time, which starts anew. */
  set(seconds: number): void {
    this.seconds = seconds;
    this.look();
  }

  /** To be called whenever somebody has come or gone. */
  look(): void {
    const { seconds } = this;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    if (seconds === 0 || this.stopped || !this.isIdle()) return;
    this.timer = setTimeout(() => this.onIdle(seconds), seconds * 1000);
  }

  /** For good. */
  stop(): void {
    this.stopped = true;
    this.look();
  }
}
