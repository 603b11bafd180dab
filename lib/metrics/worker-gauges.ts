import type { DaemonReport, WorkerReport } from '../control/worker-report.js';

/** Seconds for which a lag is kept: no usual scrape interval is longer. */
const lagMemory = 60;

/** Least seconds from which the use of the CPU is reckoned. */
const cpuInterval = 0.9;

/** How one worker is, by its last reports. */
export class WorkerGauges {
  underWay = 0;
  held = 0;
  /** Bytes. */
  residentMemory = 0;
  /** CPU seconds a second. */
  cpu = 0;
  daemons: readonly DaemonReport[] = [];
  /** Oldest first. */
  private reports: { readonly lag: number; readonly until: number }[] = [];
  private now = 0;
  private cpuSeconds = 0;
  private cpuSince = 0;

  take(report: WorkerReport): void {
    this.underWay = report.underWay;
    this.held = report.held;
    this.residentMemory = report.residentBytes;
    this.daemons = report.daemons;
    this.now += report.seconds;
    this.reports.push({ lag: report.lagSeconds, until: this.now });
    this.reports = this.reports.filter(({ until }) => until > this.now - lagMemory);
    this.cpuSeconds += report.cpuSeconds;
    const seconds = this.now - this.cpuSince;
    if (seconds < cpuInterval) return;
    this.cpu = this.cpuSeconds / seconds;
    this.cpuSeconds = 0;
    this.cpuSince = this.now;
  }

  /** Seconds by which its event loop was late at most in the last minute. */
  get lag(): number {
    return Math.max(0, ...this.reports.map(({ lag }) => lag));
  }
}
