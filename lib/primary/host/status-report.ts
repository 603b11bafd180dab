import type { ServiceManager } from './service-manager.js';

/** Milliseconds between reports. */
const interval = 10_000;

/** Tells the service manager how things stand, for `systemctl status`. */
export class StatusReport {
  /** What became of the last reload. */
  private news = 'not reloaded yet';

  /** `figures` says how many clients and workers there are. */
  constructor(
    private readonly serviceManager: Pick<ServiceManager, 'status' | 'reloaded'>,
    private readonly figures: () => string,
  ) {}

  /** Reports now and from time to time. */
  start(): void {
    const report = (): void => this.serviceManager.status(this.text);
    report();
    setInterval(report, interval).unref();
  }

  /** A reload has ended. */
  onReloaded(news: string): void {
    this.news = news;
    this.serviceManager.reloaded(this.text);
  }

  private get text(): string {
    return `${this.figures()}; ${this.news}`;
  }
}
