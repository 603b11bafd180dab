import { Successor } from './host/succession.js';
import type { PrimaryParts } from './parts.js';

/** The program's new version on its way into this one's place. */
export class Upgrade {
  private attempt = new AbortController();
  private successor: Successor | null = null;

  constructor(private readonly parts: PrimaryParts) {}

  /** The process that is ready to take over, or has. */
  get successorPid(): number | null {
    return this.successor?.pid ?? null;
  }

  /**
   * Starts the new version on the same sockets. Resolves when it is ready. Throws SuccessionError.
   */
  async start(): Promise<void> {
    const { options, entrance, serviceManager, log } = this.parts;
    const { directory, daemon } = options;
    this.attempt = new AbortController();
    this.successor = await Successor.start({
      listeners: [...entrance.listeners.all].map(({ settings, fd, path }) => ({
        settings,
        fd,
        path,
      })),
      directory,
      env: { ...process.env, ...serviceManager.environment },
      complaint: daemon ? (line) => log.error(`new version: ${line}`) : null,
      signal: this.attempt.signal,
    });
  }

  /** Ends a new version that is not ready yet. */
  abandon(): void {
    this.attempt.abort();
  }

  /**
   * Leaves sockets, new clients and the service manager to the successor, which is to reload first
   * if `reloads`.
   */
  handOver(reloads: boolean): void {
    const { entrance, serviceManager } = this.parts;
    const { successor } = this;
    if (successor === null) return;
    entrance.handOver();
    serviceManager.mainPid(successor.pid);
    serviceManager.stop();
    successor.go();
    if (reloads) successor.reload();
  }
}
