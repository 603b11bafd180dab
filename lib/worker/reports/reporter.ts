/**
 * The room of what a worker tells the primary of its work: counts, log lines, audit entries.
 * Whatever only looks on enters, and is told; it decides nothing and imports no other room of the
 * worker.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { ControlChannel } from '../../control/channel.js';
import {
  transports,
  type PrimaryMessage,
  type Transport,
  type WorkerLoad,
  type WorkerMessage,
} from '../../control/messages.js';
import type { ByteCounts } from '../../control/worker-report.js';
import type { CallMeter } from './call-meter.js';

/** Milliseconds between looks how late the event loop is. */
const lagResolution = 20;

interface Bytes {
  in: number;
  out: number;
}

const nothing = (): Record<Transport, Bytes> => ({
  unix: { in: 0, out: 0 },
  tcp: { in: 0, out: 0 },
  tls: { in: 0, out: 0 },
});

/** A client's connection, to those who count. */
export interface SessionFigures {
  readonly id: number;
  readonly transport: Transport;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** What of a worker goes into its reports. */
export interface ReportedParts {
  readonly meter: CallMeter;
  readonly sessions: () => Iterable<SessionFigures>;
  readonly load: () => WorkerLoad;
  /** Log lines and audit entries lost so far. */
  readonly lostLines: () => number;
}

/** Tells the primary what this worker has done, for the metrics. */
export class Reporter {
  private readonly delays = monitorEventLoopDelay({ resolution: lagResolution });
  private cpu = process.cpuUsage();
  private reportedAt = performance.now();
  private reportedLoss = 0;
  /** Bytes of the clients that have left. */
  private readonly past = nothing();
  private reportedBytes = nothing();

  constructor(
    private readonly channel: ControlChannel<WorkerMessage, PrimaryMessage>,
    private readonly parts: ReportedParts,
  ) {
    this.delays.enable();
  }

  /** A client is gone: what it has sent and got counts on. */
  left(session: SessionFigures): void {
    add(this.past[session.transport], session);
  }

  send(): void {
    const { meter, load, lostLines } = this.parts;
    const now = performance.now();
    const { user, system } = process.cpuUsage(this.cpu);
    const lost = lostLines();
    this.channel.send({
      kind: 'report',
      ...load(),
      ...meter.take(),
      bytes: this.bytes(),
      lostLines: lost - this.reportedLoss,
      seconds: (now - this.reportedAt) / 1000,
      cpuSeconds: (user + system) / 1e6,
      residentBytes: process.memoryUsage.rss(),
      lagSeconds: Math.max(this.delays.max / 1e9 - lagResolution / 1000, 0),
    });
    this.cpu = process.cpuUsage();
    this.reportedAt = now;
    this.reportedLoss = lost;
    this.delays.reset();
  }

  /** Since the last report. */
  private bytes(): Record<Transport, ByteCounts> {
    const total = structuredClone(this.past);
    for (const session of this.parts.sessions()) add(total[session.transport], session);
    const before = this.reportedBytes;
    this.reportedBytes = total;
    const since = nothing();
    for (const transport of transports) {
      since[transport].in = total[transport].in - before[transport].in;
      since[transport].out = total[transport].out - before[transport].out;
    }
    return since;
  }
}

function add(bytes: Bytes, { receivedBytes, sentBytes }: SessionFigures): void {
  bytes.in += receivedBytes;
  bytes.out += sentBytes;
}
