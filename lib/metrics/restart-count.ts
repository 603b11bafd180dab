import type { RestartReport } from '../control/worker-report.js';

/**
 * Milliseconds within which workers lose their connections to a daemon that ends. All are closed at
 * once, but a worker that is busy notices later.
 */
const sameRestart = 2000;

interface CountedRestart {
  readonly at: number;
  /** The workers' slots and sockets of those that have told of it. */
  readonly tellers: Set<string>;
}

/**
 * Counts the restarts of one daemon, each once, though every worker with connections to it tells of
 * it.
 */
export class RestartCount {
  total = 0;
  private recent: CountedRestart[] = [];

  /**
   * The worker in a slot tells of a restart. The first within two seconds that it has not told of
   * yet is the same one: what a worker tells twice are two, one for the daemon's socket and one for
   * its read-only socket may be one.
   */
  add(slot: number, { path, at }: RestartReport): void {
    const teller = `${slot} ${path}`;
    // Reports come each second, so that the older ones have been told of by all.
    this.recent = this.recent.filter((restart) => restart.at > at - 10 * sameRestart);
    const same = this.recent.find(
      (restart) => Math.abs(restart.at - at) <= sameRestart && !restart.tellers.has(teller),
    );
    if (same !== undefined) {
      same.tellers.add(teller);
      return;
    }
    this.total++;
    this.recent.push({ at, tellers: new Set([teller]) });
  }
}
