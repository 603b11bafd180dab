import type { AdminSettings } from '../admin/admin-server.js';
import {
  AdminError,
  type AdminBackend,
  type AdminClient,
  type AdministeredServer,
  type ClientBounds,
  type ClientFigures,
  type WorkerFigures,
} from '../admin/backend.js';
import type { WorkerBounds } from '../control/workers.js';
import type { Configuration } from '../config/configuration.js';
import { mostWorkers } from '../config/values.js';
import { LogSettingError, type LogControl } from '../logging/log-control.js';
import type { Logger } from '../logging/logger.js';
import type { CertificateExpiry } from '../control/certificates.js';
import { errorText } from '../error-text.js';
import type { Client } from './clients/client-registry.js';
import { maxIdleSeconds } from './host/idle-clock.js';
import { readTls, type CheckedTls } from './host/prerequisites.js';
import type { Reception } from './clients/reception.js';
import { loadsOf } from './workers/worker-loads.js';
import type { WorkerPool } from './workers/worker-pool.js';
import type { WorkerProcess } from './workers/worker-process.js';

/** What of the primary administrators see and steer. */
export interface AdministeredParts {
  readonly version: string;
  readonly configuration: () => Configuration;
  readonly reception: Reception;
  readonly pool: WorkerPool;
  readonly logging: LogControl;
  /** The files are good, and in use for connections to come. */
  readonly onTlsUpdated: (expiry: CertificateExpiry) => void;
  readonly setIdleTimeout: (seconds: number) => void;
  readonly shutDown: () => void;
  readonly log: Logger;
}

/** How the admin socket is served. */
export function adminSettingsOf({ conf }: Configuration): AdminSettings {
  return {
    maxClients: conf.admin_max_clients,
    maxQueuedClients: Math.max(conf.admin_max_queued_clients, 1),
    maxCalls: conf.admin_max_client_requests,
    keepalive: { interval: conf.admin_keepalive_interval, count: conf.admin_keepalive_count },
  };
}

/** The daemon as its administrators see it. What they change holds until the next reload. */
export class Administration implements AdminBackend {
  readonly server: AdministeredServer;

  constructor(private readonly parts: AdministeredParts) {
    this.server = new ProxyServer(parts);
  }

  get version(): string {
    return this.parts.version;
  }

  get loggingOutputs(): string {
    return this.parts.logging.outputs;
  }

  get loggingFilters(): string {
    return this.parts.logging.filters;
  }

  setLoggingOutputs(text: string | null): void {
    this.changeLogging(`log outputs are now '${text ?? ''}'`, () =>
      this.parts.logging.setOutputs(text),
    );
  }

  setLoggingFilters(text: string | null): void {
    this.changeLogging(`log filters are now '${text ?? ''}'`, () =>
      this.parts.logging.setFilters(text),
    );
  }

  setIdleTimeout(seconds: number): void {
    if (seconds > maxIdleSeconds) {
      throw new AdminError('invalid', `the timeout must be 0 to ${maxIdleSeconds} seconds`);
    }
    this.parts.setIdleTimeout(seconds);
    this.parts.log.info(
      seconds === 0 ? 'stays without clients' : `ends after ${seconds} seconds without clients`,
    );
  }

  shutDown(): void {
    this.parts.shutDown();
  }

  private changeLogging(line: string, change: () => void): void {
    try {
      change();
    } catch (error) {
      const fault = error instanceof LogSettingError ? 'invalid' : 'system';
      throw new AdminError(fault, errorText(error), { cause: error });
    }
    this.parts.log.info(line);
  }
}

/** The server of the daemon's ordinary clients. */
class ProxyServer implements AdministeredServer {
  readonly name = 'virtproxyd';

  constructor(private readonly parts: AdministeredParts) {}

  *clients(): Iterable<AdminClient> {
    for (const client of this.parts.reception.clients.all) yield describe(client);
  }

  client(id: number): AdminClient | null {
    const client = this.parts.reception.clients.get(id);
    return client === undefined ? null : describe(client);
  }

  closeClient(id: number): void {
    const client = this.parts.reception.clients.get(id);
    client?.worker?.send({ kind: 'closeClient', id, reason: 'an administrator disconnected it' });
  }

  clientFigures(): ClientFigures {
    const { clients, limits } = this.parts.reception;
    const { maxClients, maxAnonymousClients } = limits;
    return {
      maxClients,
      maxAnonymousClients,
      clients: clients.size,
      anonymous: clients.anonymousSize,
    };
  }

  boundClients({ maxClients, maxAnonymousClients }: ClientBounds): void {
    const { reception, log } = this.parts;
    reception.limits = { ...reception.limits, maxClients, maxAnonymousClients };
    log.info(`limits are now ${maxClients} clients, ${maxAnonymousClients} of them not logged in`);
    reception.serveWaiting();
  }

  workerBounds(): WorkerBounds {
    return this.parts.pool.bounds;
  }

  async workerFigures(): Promise<WorkerFigures> {
    const { pool } = this.parts;
    const loads = await loadsOf(
      [...pool.all].filter(({ state }) => state === 'ready' || state === 'draining'),
    );
    let queuedCalls = 0;
    for (const { held } of loads.values()) queuedCalls += held;
    const isFree = (worker: WorkerProcess): boolean =>
      worker.state === 'starting' || loads.get(worker)?.underWay === 0;
    const { live, bounds } = pool;
    return {
      ...bounds,
      workers: live.length,
      freeWorkers: live.filter(isFree).length,
      queuedCalls,
    };
  }

  boundWorkers(bounds: WorkerBounds): void {
    const { pool, log } = this.parts;
    const { minWorkers, maxWorkers } = bounds;
    if (maxWorkers > mostWorkers) {
      throw new AdminError('invalid', `maxWorkers (${maxWorkers}) must be ${mostWorkers} at most`);
    }
    pool.resize(bounds);
    log.info(`there are now ${minWorkers} to ${maxWorkers} workers`);
  }

  async updateTls(): Promise<void> {
    const { pool, onTlsUpdated, log } = this.parts;
    const configuration = this.parts.configuration();
    if (!configuration.conf.listen_tls) {
      throw new AdminError('failed', 'there is no TLS socket: set listen_tls and reload');
    }
    let checked: CheckedTls;
    try {
      checked = await readTls(configuration, log);
    } catch (error) {
      log.error(`the TLS files were not updated: ${errorText(error)}`);
      throw new AdminError('system', errorText(error), { cause: error });
    }
    pool.setTls(checked.tls);
    // A worker that has answered has the new files.
    await loadsOf(pool.live.filter(({ state }) => state === 'ready'));
    onTlsUpdated(checked.certificates);
    log.info('the TLS files were updated');
  }
}

function describe({ introduction, connectedAt, identity }: Client): AdminClient {
  const { id, transport, readOnly, local, remoteAddress } = introduction;
  return {
    id,
    transport,
    connectedAt,
    readOnly: identity?.readOnly ?? readOnly,
    local,
    remoteAddress,
    saslUserName: identity?.saslUserName ?? null,
    x509Name: identity?.x509Name ?? null,
  };
}
