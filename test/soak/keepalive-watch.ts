import { setTimeout as pause } from 'node:timers/promises';
import { encodeInt } from '../../lib/rpc/session-messages.js';
import type { RawClient } from '../peers/raw-client.js';
import { stressCall, type StressDaemon } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';

/**
 * Calls that are never answered, as many as max_client_requests lets through, and those that wait
 * behind them.
 */
const blocked = 5;
const queued = 50;

/** Milliseconds between PINGs, and the most that a PONG may take before it counts as missing. */
const interval = 50;
const patience = 30_000;

/** By which the daemon knows whose calls it is not to answer. */
const clientNumber = 2;

/**
 * A client that has all its calls blocked and asks with PING again and again whether the proxy is
 * alive.
 */
export class KeepaliveWatch {
  /** Milliseconds until each PONG. */
  readonly latencies: number[] = [];
  private stopping = false;
  private readonly running: Promise<void>;

  constructor(
    private readonly connect: () => Promise<RawClient>,
    private readonly daemon: StressDaemon,
  ) {
    this.running = this.live();
  }

  /** Rejects if a PONG was missing. */
  async stop(): Promise<void> {
    this.stopping = true;
    await this.running;
  }

  private async live(): Promise<void> {
    while (!this.stopping) {
      // The daemon may be just restarting.
      const client = await this.connect().catch(() => null);
      if (client === null) await pause(interval);
      else await this.watch(client).finally(() => client.destroy());
    }
  }

  private async watch(client: RawClient): Promise<void> {
    this.daemon.withhold(clientNumber);
    const state = { isRestarted: false };
    client.consume = ({ procedure }) => {
      // An error: its daemon went away.
      state.isRestarted ||= procedure === stressCall.echo;
      return false;
    };
    for (let count = 0; count < blocked + queued; count++) {
      client.begin(stressCall.echo, encodeInt(clientNumber));
    }
    const isBlocked = (): boolean =>
      this.daemon.waiting(clientNumber) === blocked || state.isRestarted;
    await until(isBlocked, { what: 'the calls to be blocked', deadlineMs: patience });
    while (!this.stopping && !state.isRestarted) {
      const before = performance.now();
      await client.ping(patience);
      this.latencies.push(performance.now() - before);
      await pause(interval);
    }
  }
}
