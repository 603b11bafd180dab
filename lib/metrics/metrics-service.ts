import type { Logger } from '../logging/logger.js';
import { BrieflyKept } from './briefly-kept.js';
import { Exposition } from './exposition.js';
import type { FactSource } from './facts.js';
import { HttpServer, text, type Answer } from './http-server.js';
import { statusPage } from './page.js';
import { missingParts } from './readiness.js';
import { Recent, sampleInterval } from './recent.js';
import { statusOf } from './status.js';

/**
 * Milliseconds for which an answer may be given again: nobody makes the primary work more often
 * than that.
 */
const freshness = 200;

/** What the listener of `[metrics]` shows: metrics, status and health of the daemon. */
export class MetricsService {
  private readonly exposition = new Exposition();
  private readonly recent = new Recent();
  private readonly http: HttpServer;
  private sampling: NodeJS.Timeout | null = null;

  constructor(
    private readonly source: FactSource,
    log: Logger,
  ) {
    const metrics = new BrieflyKept(() => this.metrics(), freshness);
    const status = new BrieflyKept(() => this.status(), freshness);
    const readiness = new BrieflyKept(() => this.readiness(), freshness);
    this.http = new HttpServer(
      {
        '/': statusPage,
        '/metrics': () => metrics.get(),
        '/status.json': () => status.get(),
        '/healthz': () => this.health(),
        '/readyz': () => readiness.get(),
      },
      log,
    );
  }

  /** Takes a connection that the listener accepted, a descriptor that is its own from now on. */
  connected(fd: number): void {
    this.http.connected(fd);
  }

  /** Follows what the workers do, or no longer. */
  turn(on: boolean): void {
    if (on === (this.sampling !== null)) return;
    if (this.sampling !== null) clearInterval(this.sampling);
    this.sampling = on ? setInterval(() => void this.sample(), sampleInterval).unref() : null;
    this.recent.clear();
  }

  /** Ends all connections, and follows nothing any more. */
  close(): void {
    this.turn(false);
    this.http.close();
  }

  private async sample(): Promise<void> {
    await this.source.refresh();
    this.recent.take(this.source.facts().totals, performance.now());
  }

  private async metrics(): Promise<Answer> {
    await this.source.refresh();
    const body = await this.exposition.text(this.source.facts());
    return { status: 200, contentType: this.exposition.contentType, body };
  }

  private async status(): Promise<Answer> {
    const sockets = await this.source.daemonSockets();
    const status = statusOf(this.source.facts(), sockets, this.recent, Date.now());
    return { status: 200, contentType: 'application/json', body: JSON.stringify(status) };
  }

  private health(): Answer {
    return this.source.facts().isServing ? text(200, 'ok') : text(503, 'not serving');
  }

  private async readiness(): Promise<Answer> {
    const missing = missingParts(this.source.facts(), await this.source.daemonSockets());
    return missing.length === 0
      ? text(200, 'ready')
      : text(503, ['not ready', ...missing].join('\n'));
  }
}
