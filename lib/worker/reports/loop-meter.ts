import { performance, type EventLoopUtilization } from 'node:perf_hooks';

/** Milliseconds that are too few to say anything; heartbeats that had to wait come in one go. */
const shortest = 500;

/** How busy this process is, from one look to the next. */
export class LoopMeter {
  private before: EventLoopUtilization = performance.eventLoopUtilization();
  private last = 0;

  /** Forgets what was before, such as the work of the start. */
  restart(): void {
    this.before = performance.eventLoopUtilization();
    this.last = 0;
  }

  /**
   * The share of the time since the last look in which the event loop did not wait, 0 to 1; soon
   * after a look, what that said.
   */
  look(): number {
    const now = performance.eventLoopUtilization();
    const { active, idle, utilization } = performance.eventLoopUtilization(now, this.before);
    if (active + idle < shortest) return this.last;
    this.before = now;
    this.last = utilization;
    return utilization;
  }
}
