import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AdminServer, type AdminSettings } from '../../lib/admin/admin-server.js';
import type {
  AdminBackend,
  AdminClient as ConnectedClient,
  AdministeredServer,
  ClientBounds,
  WorkerFigures,
} from '../../lib/admin/backend.js';
import type { WorkerBounds } from '../../lib/control/workers.js';
import type { LocalPeer } from '../../lib/control/messages.js';
import { Logger, LogThreshold, type LogRecord } from '../../lib/logging/logger.js';
import { Listener, type ListenerSettings } from '../../lib/primary/listeners/listener.js';
import { SocketStream } from '../../lib/transport/socket-stream.js';
import { freshDirectory } from '../peers/waiting.js';
import { AdminClient } from './admin-client.js';

/** Clients of the three transports; the numbers are made up. */
export const someClients: readonly ConnectedClient[] = [
  {
    id: 3,
    transport: 'unix',
    connectedAt: 1_700_000_000_999,
    readOnly: true,
    local: { pid: 4711, uid: 0, gid: 0, groups: [], startTime: '5', selinuxContext: 'u:r:t' },
    remoteAddress: null,
    saslUserName: null,
    x509Name: null,
  },
  {
    id: 5,
    transport: 'tcp',
    connectedAt: 1_700_000_001_000,
    readOnly: false,
    local: null,
    remoteAddress: '192.0.2.7;40000',
    saslUserName: 'fred',
    x509Name: null,
  },
  {
    id: 2 ** 40,
    transport: 'tls',
    connectedAt: 1_700_000_002_000,
    readOnly: false,
    local: null,
    remoteAddress: '2001:db8::7;40001',
    saslUserName: null,
    x509Name: 'O=Acme,CN=wilma',
  },
];

/** A daemon that remembers what it was told. */
class FakeBackend implements AdminBackend, AdministeredServer {
  readonly version = '12.34.56';
  readonly name = 'virtproxyd';
  readonly server = this;
  loggingOutputs = '1:file:/a/log 3:stderr';
  loggingFilters = '';
  /** What was asked for, in words. */
  readonly said: string[] = [];
  /** Thrown by whatever changes something. */
  fault: Error | null = null;
  /** Made to wait by a test: `workerFigures` comes when it is resolved. */
  gate: Promise<void> = Promise.resolve();
  bounds: WorkerBounds = { minWorkers: 2, maxWorkers: 4 };
  clientBounds: ClientBounds = { maxClients: 100, maxAnonymousClients: 10 };

  clients(): readonly ConnectedClient[] {
    return someClients;
  }

  client(id: number): ConnectedClient | null {
    return someClients.find((client) => client.id === id) ?? null;
  }

  closeClient(id: number): void {
    this.say(`close ${id}`);
  }

  clientFigures(): ClientBounds & { clients: number; anonymous: number } {
    return { ...this.clientBounds, clients: 3, anonymous: 1 };
  }

  boundClients(bounds: ClientBounds): void {
    this.say('bound clients');
    this.clientBounds = bounds;
  }

  workerBounds(): WorkerBounds {
    return this.bounds;
  }

  async workerFigures(): Promise<WorkerFigures> {
    await this.gate;
    return { ...this.bounds, workers: 3, freeWorkers: 1, queuedCalls: 6 };
  }

  boundWorkers(bounds: WorkerBounds): void {
    this.say('bound workers');
    this.bounds = bounds;
  }

  updateTls(): Promise<void> {
    this.say('update TLS');
    return Promise.resolve();
  }

  setLoggingOutputs(text: string | null): void {
    this.say(`outputs ${String(text)}`);
  }

  setLoggingFilters(text: string | null): void {
    this.say(`filters ${String(text)}`);
  }

  setIdleTimeout(seconds: number): void {
    this.say(`timeout ${seconds}`);
  }

  shutDown(): void {
    this.say('shut down');
  }

  private say(text: string): void {
    if (this.fault !== null) throw this.fault;
    this.said.push(text);
  }
}

export const usualSettings: AdminSettings = {
  maxClients: 10,
  maxQueuedClients: 5,
  maxCalls: 5,
  keepalive: { interval: 5, count: 5 },
};

/** An admin server on a socket of its own in this process. */
export class AdminHost {
  readonly backend = new FakeBackend();
  readonly admin: AdminServer;
  readonly records: LogRecord[] = [];
  /** How often the number of clients may have changed. */
  changes = 0;
  /** Who the next connections are said to be. */
  peer: LocalPeer;
  private listener: Listener | null = null;
  private readonly opened: AdminClient[] = [];

  private constructor(
    private readonly directory: string,
    settings: Partial<AdminSettings>,
  ) {
    this.peer = {
      pid: 4711,
      uid: process.geteuid!(),
      gid: 0,
      groups: [],
      startTime: null,
      selinuxContext: null,
    };
    const threshold = new LogThreshold({ level: 1, filters: [] });
    const log = new Logger('admin', threshold, (record) => this.records.push(record));
    this.admin = new AdminServer({ ...usualSettings, ...settings }, this.backend, log, () => {
      this.changes++;
    });
  }

  static async start(settings: Partial<AdminSettings> = {}): Promise<AdminHost> {
    const host = new AdminHost(await freshDirectory(), settings);
    await host.listen();
    return host;
  }

  private async listen(): Promise<void> {
    const settings: ListenerSettings = {
      role: 'admin',
      isActivated: false,
      transport: 'unix',
      auth: 'none',
      readOnly: false,
      name: this.path,
      backlog: 20,
    };
    this.listener = await Listener.onPath(settings, { path: this.path, mode: 0o600, group: null });
    this.listener.accept({
      onConnection: (_, connection) => {
        this.admin.connected(SocketStream.accepted(connection), this.peer);
      },
      onAcceptError: (_, error) => {
        throw error;
      },
    });
  }

  get path(): string {
    return join(this.directory, 'libvirt-admin-sock');
  }

  async connect(): Promise<AdminClient> {
    const client = await AdminClient.connect(this.path);
    this.opened.push(client);
    return client;
  }

  async stop(): Promise<void> {
    for (const client of this.opened) client.destroy();
    this.admin.close('the test is over');
    this.listener?.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}
