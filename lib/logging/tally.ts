/** Milliseconds between two lines of the same kind. */
const usualInterval = 10_000;

/**
 * Says something that may happen a million times: at once when it happens first, and then at most
 * once in an interval, with the number of times so far.
 */
export class Tally {
  private count = 0;
  private reported = 0;
  private timer: NodeJS.Timeout | null = null;

  constructor(
    private readonly say: (count: number) => void,
    /** Milliseconds. */
    private readonly interval = usualInterval,
  ) {}

  add(): void {
    this.count++;
    if (this.timer === null) this.report();
  }

  private report(): void {
    this.reported = this.count;
    this.say(this.count);
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.count > this.reported) this.report();
    }, this.interval);
    this.timer.unref();
  }
}
