interface Interval {
  readonly act: () => void;
  readonly every: number;
  /** Milliseconds of the fake's own clock. */
  next: number;
}

/** Takes the place of setInterval: time passes only when a test says so. */
export class FakeIntervals {
  private readonly real = [globalThis.setInterval, globalThis.clearInterval] as const;
  private readonly running = new Set<Interval>();
  private now = 0;

  constructor() {
    const begin = (act: () => void, every: number): unknown => {
      const interval = { act, every, next: this.now + every, unref: () => interval };
      this.running.add(interval);
      return interval;
    };
    globalThis.setInterval = begin as typeof setInterval;
    globalThis.clearInterval = (interval) => {
      this.running.delete(interval as unknown as Interval);
    };
  }

  /** Lets milliseconds pass. */
  pass(milliseconds: number): void {
    for (const end = this.now + milliseconds; this.now < end;) {
      this.now++;
      for (const interval of [...this.running]) {
        if (interval.next > this.now || !this.running.has(interval)) continue;
        interval.next += interval.every;
        interval.act();
      }
    }
  }

  restore(): void {
    [globalThis.setInterval, globalThis.clearInterval] = this.real;
  }
}
