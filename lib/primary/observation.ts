import { stat } from 'node:fs/promises';
import type { Configuration } from '../config/configuration.js';
import { daemonPlace, hypervisorDrivers, knownDrivers } from '../config/daemon-places.js';
import { transports, type Transport } from '../control/messages.js';
import type { WorkerReport } from '../control/worker-report.js';
import type { LogControl } from '../logging/log-control.js';
import {
  clientStates,
  type ClientCounts,
  type DaemonSocket,
  type Facts,
  type FactSource,
  type LastReload,
  type ReloadResult,
  type ServingState,
  type WorkerFacts,
} from '../metrics/facts.js';
import type { CertificateExpiry } from '../control/certificates.js';
import { WorkerGauges } from '../metrics/worker-gauges.js';
import { WorkerTotals } from '../metrics/worker-totals.js';
import type { Reception } from './clients/reception.js';
import { loadsOf } from './workers/worker-loads.js';
import type { WorkerPool } from './workers/worker-pool.js';
import type { WorkerProcess } from './workers/worker-process.js';

/** What of the primary is observed. */
export interface ObservedParts {
  readonly version: string;
  readonly configuration: () => Configuration;
  readonly isServing: () => boolean;
  readonly reception: Reception;
  readonly pool: WorkerPool;
  readonly logging: LogControl;
}

/**
 * The daemon as its metrics and its status page show it. Counts are kept whether or not anybody
 * looks.
 */
export class Observation implements FactSource {
  /** When the certificates in use expire; null without TLS. */
  certificates: CertificateExpiry | null = null;
  private readonly startedAt = Date.now() - process.uptime() * 1000;
  /** How workers are by their own reports. */
  private readonly gauges = new WeakMap<WorkerProcess, WorkerGauges>();
  private readonly totals = new WorkerTotals();
  private readonly reloads = { success: 0, failure: 0 };
  private lastReload: LastReload | null = null;

  constructor(private readonly parts: ObservedParts) {}

  onReload(result: ReloadResult): void {
    this.reloads[result]++;
    this.lastReload = { at: Date.now(), result };
  }

  onReport(worker: WorkerProcess, report: WorkerReport): void {
    const gauges = this.gauges.get(worker) ?? new WorkerGauges();
    this.gauges.set(worker, gauges);
    gauges.take(report);
    this.totals.add(worker.slot, report);
  }

  facts(): Facts {
    const { version, isServing, reception, pool, logging } = this.parts;
    const { user, system } = process.cpuUsage();
    return {
      version,
      startedAt: this.startedAt,
      primary: {
        pid: process.pid,
        cpuSeconds: (user + system) / 1e6,
        residentMemory: process.memoryUsage.rss(),
      },
      isServing: isServing(),
      generation: pool.currentGeneration,
      drainingGenerations: pool.drainingGenerations,
      wantedWorkers: pool.wanted,
      workers: [...pool.all]
        .flatMap((worker) => factsOf(worker, this.gauges.get(worker) ?? null))
        .sort((one, other) => one.slot - other.slot),
      clients: clientsOf(reception),
      maxClients: reception.limits.maxClients,
      accepted: reception.accepted,
      refused: reception.refused,
      restarts: pool.restarts,
      reloads: this.reloads,
      lastReload: this.lastReload,
      certificates: this.certificates,
      droppedLines: logging.drops,
      totals: this.totals,
    };
  }

  async refresh(): Promise<void> {
    const { pool } = this.parts;
    await loadsOf([...pool.all].filter(({ state }) => state === 'ready' || state === 'draining'));
  }

  daemonSockets(): Promise<readonly DaemonSocket[]> {
    return Promise.all(
      expectedSockets(this.parts.configuration()).map(async (expected) => ({
        ...expected,
        isThere: await isSocket(expected.path),
      })),
    );
  }
}

function factsOf(
  { slot, pid, generation, state, clients }: WorkerProcess,
  gauges: WorkerGauges | null,
): WorkerFacts[] {
  if (state === 'spare' || state === 'gone') return [];
  return [{ slot, pid, generation, state: state satisfies ServingState, clients, gauges }];
}

function clientsOf({ clients, queue }: Reception): Facts['clients'] {
  const counts = Object.fromEntries(
    transports.map((transport) => [
      transport,
      { ...Object.fromEntries(clientStates.map((state) => [state, 0])), readOnly: 0 },
    ]),
  ) as Record<Transport, Record<keyof ClientCounts, number>>;
  for (const { introduction, loggedIn, identity } of clients.all) {
    const its = counts[introduction.transport];
    its[loggedIn ? 'serving' : 'login']++;
    if (loggedIn && (identity ?? introduction).readOnly) its.readOnly++;
  }
  for (const { introduction } of queue) counts[introduction.transport].waiting++;
  return counts;
}

/**
 * Where daemons may be, each socket once. In session mode none need be: they are started when a
 * client comes.
 */
function expectedSockets(configuration: Configuration): readonly Omit<DaemonSocket, 'isThere'>[] {
  if (configuration.mode === 'session') return [];
  const { routes } = configuration;
  const hypervisors: readonly string[] = hypervisorDrivers.system;
  const drivers = new Set([...knownDrivers, ...Object.keys(routes)]);
  const sockets = new Map<string, Omit<DaemonSocket, 'isThere'>>();
  for (const driver of drivers) {
    const { daemon, path } = daemonPlace(configuration, driver);
    const known = sockets.get(path);
    sockets.set(path, {
      daemon: known?.daemon ?? daemon,
      path,
      isRouted: Object.values(routes).includes(path),
      isHypervisor: known?.isHypervisor === true || hypervisors.includes(driver),
    });
  }
  return [...sockets.values()];
}

async function isSocket(path: string): Promise<boolean> {
  return stat(path).then(
    (there) => there.isSocket(),
    () => false,
  );
}
