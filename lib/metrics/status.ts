import { transports, type RefusalReason, type Transport } from '../control/messages.js';
import { daemonFailures, type DaemonFailure } from '../control/worker-report.js';
import { connections } from './daemon-connections.js';
import { clientStates } from './facts.js';
import type {
  ClientCounts,
  DaemonSocket,
  Facts,
  LastReload,
  ReloadResult,
  ServingState,
} from './facts.js';
import type { RestartReason } from '../control/workers.js';
import type { CertificateExpiry } from '../control/certificates.js';
import { pendingCalls } from './families.js';
import type { Recent } from './recent.js';
import { warningsOn, type Warning } from './warnings.js';

/** Seconds that calls took in the last minute; null without calls. */
export interface Latency {
  readonly p50: number | null;
  readonly p99: number | null;
}

export interface WorkerStatus {
  readonly slot: number;
  readonly pid: number;
  readonly generation: number;
  readonly state: ServingState;
  readonly clients: number;
  /** CPU seconds a second, bytes, and seconds; null until its first report. */
  readonly cpu: number | null;
  readonly residentMemory: number | null;
  readonly lag: number | null;
}

export interface DaemonStatus {
  readonly daemon: string;
  /** Whether its socket is there; null for daemons whose socket nobody knows. */
  readonly isThere: boolean | null;
  readonly connections: number;
  /** Those that are being opened again because it went away, and how often it did. */
  readonly reopening: number;
  readonly restarts: number;
  readonly callsPerSecond: number;
  readonly latency: Latency;
  readonly failures: Readonly<Record<DaemonFailure, number>>;
}

/**
 * `down`: nobody is served; `degraded`: there are warnings that keep somebody from being served.
 */
export type Health = 'ok' | 'degraded' | 'down';

/** What `/status.json` has: the daemon at a glance. Times are milliseconds since the epoch. */
export interface Status {
  readonly version: string;
  readonly pid: number;
  readonly startedAt: number;
  readonly now: number;
  readonly health: Health;
  readonly warnings: readonly Warning[];
  readonly generation: number;
  readonly drainingGenerations: number;
  readonly lastReload: LastReload | null;
  readonly reloads: Readonly<Record<ReloadResult, number>>;
  readonly restarts: Readonly<Record<RestartReason, number>>;
  readonly clients: {
    readonly total: number;
    readonly max: number;
    readonly byTransport: Readonly<Record<Transport, ClientCounts>>;
    readonly accepted: Readonly<Record<Transport, number>>;
    readonly refused: Readonly<Record<RefusalReason, number>>;
  };
  readonly calls: {
    /** Over the last ten seconds. */
    readonly perSecond: number;
    readonly errorsPerSecond: number;
    readonly inFlight: number;
    readonly held: number;
    readonly latency: Latency;
    /** Calls a second of each of the last seconds, oldest first, two minutes at most. */
    readonly history: readonly number[];
  };
  /** From and to clients, over the last ten seconds. */
  readonly bytesPerSecond: { readonly in: number; readonly out: number };
  /** How many workers there should be. */
  readonly wantedWorkers: number;
  readonly workers: readonly WorkerStatus[];
  readonly daemons: readonly DaemonStatus[];
  readonly certificates: CertificateExpiry | null;
}

export function statusOf(
  facts: Facts,
  sockets: readonly DaemonSocket[],
  recent: Recent,
  now: number,
): Status {
  const { version, startedAt, generation, drainingGenerations, lastReload, reloads } = facts;
  const { restarts, clients, maxClients, accepted, refused, certificates } = facts;
  const warnings = warningsOn(facts, sockets, now);
  return {
    version,
    pid: facts.primary.pid,
    startedAt,
    now,
    health: healthOf(facts, warnings),
    warnings,
    generation,
    drainingGenerations,
    lastReload,
    reloads,
    restarts,
    clients: {
      total: totalClients(clients),
      max: maxClients,
      byTransport: clients,
      accepted,
      refused,
    },
    calls: {
      perSecond: recent.rate('calls'),
      errorsPerSecond: recent.rate('errors'),
      ...pendingCalls(facts),
      latency: latencyOf(recent),
      history: recent.callHistory(),
    },
    bytesPerSecond: { in: recent.rate('bytesIn'), out: recent.rate('bytesOut') },
    wantedWorkers: facts.wantedWorkers,
    workers: facts.workers.map(({ slot, pid, generation: of, state, clients: count, gauges }) => ({
      slot,
      pid,
      generation: of,
      state,
      clients: count,
      cpu: gauges?.cpu ?? null,
      residentMemory: gauges?.residentMemory ?? null,
      lag: gauges?.lag ?? null,
    })),
    daemons: daemonsOf(facts, sockets, recent),
    certificates,
  };
}

function healthOf({ isServing, workers }: Facts, warnings: readonly Warning[]): Health {
  if (!isServing || !workers.some(({ state }) => state === 'ready')) return 'down';
  return warnings.length > 0 ? 'degraded' : 'ok';
}

function totalClients(clients: Facts['clients']): number {
  return transports
    .flatMap((transport) => clientStates.map((state) => clients[transport][state]))
    .reduce((sum, count) => sum + count, 0);
}

function latencyOf(recent: Recent, daemon?: string): Latency {
  return { p50: recent.quantile(0.5, daemon), p99: recent.quantile(0.99, daemon) };
}

/** Those that are there, should be, or were connected to. */
function daemonsOf(
  facts: Facts,
  sockets: readonly DaemonSocket[],
  recent: Recent,
): readonly DaemonStatus[] {
  const { daemons } = facts.totals;
  const open = connections(facts, 'open');
  const reopening = connections(facts, 'reopening');
  const isThere = new Map<string, boolean>();
  for (const socket of sockets) {
    if (!socket.isThere && !socket.isRouted && !daemons.has(socket.daemon)) continue;
    isThere.set(socket.daemon, socket.isThere && (isThere.get(socket.daemon) ?? true));
  }
  return [...new Set([...isThere.keys(), ...daemons.keys()])].map((daemon) => ({
    daemon,
    isThere: isThere.get(daemon) ?? null,
    connections: open.get(daemon) ?? 0,
    reopening: reopening.get(daemon) ?? 0,
    restarts: daemons.get(daemon)?.restarts.total ?? 0,
    callsPerSecond: recent.daemonRate(daemon),
    latency: latencyOf(recent, daemon),
    failures: Object.fromEntries(
      daemonFailures.map((why, index) => [why, daemons.get(daemon)?.failures[index] ?? 0]),
    ) as Record<DaemonFailure, number>,
  }));
}
