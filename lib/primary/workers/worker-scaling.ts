import type { Logger } from '../../logging/logger.js';
import { demandOf, totalOf } from './worker-demand.js';
import type { WorkerPool } from './worker-pool.js';

/** Milliseconds between looks at how busy the workers are. */
const reviewInterval = 1000;

/** Keeps as many workers as are needed, within the pool's bounds. */
export class WorkerScaling {
  private readonly reviews: NodeJS.Timeout;
  /** Since when one worker fewer would have done, in seconds; null when it would not. */
  private quietSince: number | null = null;

  constructor(
    private readonly pool: WorkerPool,
    /** Seconds of quiet before a worker is let go of. */
    private readonly patience: () => number,
    private readonly log: Logger,
  ) {
    this.reviews = setInterval(() => this.review(), reviewInterval);
    this.reviews.unref();
  }

  stop(): void {
    clearInterval(this.reviews);
  }

  /** To be called as well when a client has come or a worker is ready, since clients stay. */
  review(): void {
    const { pool } = this;
    const { ready, wanted, bounds, isDraining } = pool;
    if (bounds.minWorkers === bounds.maxWorkers) return;
    const now = performance.now() / 1000;
    const { quietSince } = this;
    const patience = this.patience();
    const demand = demandOf({ ready, wanted, bounds, isDraining, quietSince, now, patience });
    this.quietSince = demand.quietSince;
    if (demand.wanted === wanted) return;
    const { utilisation, clients } = totalOf(ready);
    const percent = Math.round((utilisation / ready.length) * 100);
    this.log.info(
      `workers: ${demand.wanted} instead of ${wanted}, which are ${percent} % busy with ${clients} clients`,
    );
    pool.want(demand.wanted);
  }
}
