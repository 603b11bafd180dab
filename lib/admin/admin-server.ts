import type { LocalPeer } from '../control/messages.js';
import type { Logger } from '../logging/logger.js';
import type { ByteStream } from '../transport/byte-stream.js';
import { AdminSession, type AdminSessionSettings } from './admin-session.js';
import {
  AdminError,
  type AdminBackend,
  type AdminClient,
  type AdministeredServer,
  type ClientBounds,
  type ClientFigures,
  type WorkerFigures,
} from './backend.js';
import type { WorkerBounds } from '../control/workers.js';
import { notOwner } from './errors.js';
import type { Administered } from './procedures.js';
import { refuse } from './refusal.js';

/** Source: the admin_ keys of virtproxyd.conf. */
export interface AdminSettings extends AdminSessionSettings {
  readonly maxClients: number;
  /** Accepted connections that may wait for a place. */
  readonly maxQueuedClients: number;
}

/** An administrator who waits for a place. */
interface Caller {
  readonly stream: ByteStream;
  readonly peer: LocalPeer;
  readonly connectedAt: number;
}

/** Milliseconds between looks at all sessions' silence. */
const tickInterval = 1000;

/**
 * The admin program's server. It serves the user the daemon runs as and nobody else, whatever the
 * socket's permissions say, and is itself one of the two servers that administrators see.
 */
export class AdminServer implements AdministeredServer {
  readonly name = 'admin';
  private readonly sessions = new Map<number, AdminSession>();
  private readonly queue: Caller[] = [];
  private readonly administered: Administered;
  private readonly ownUid = process.geteuid?.() ?? 0;
  private readonly ticking: NodeJS.Timeout;
  private bounds: ClientBounds;
  private lastId = 0;

  constructor(
    private settings: AdminSettings,
    backend: AdminBackend,
    private readonly log: Logger,
    /** Called whenever the number of clients may have changed. */
    private readonly changed: () => void,
  ) {
    this.bounds = { maxClients: settings.maxClients, maxAnonymousClients: 0 };
    this.administered = { backend, servers: [backend.server, this] };
    this.ticking = setInterval(() => {
      const now = performance.now();
      for (const session of this.sessions.values()) session.tick(now);
    }, tickInterval);
    this.ticking.unref();
  }

  /** Clients, those that wait included. */
  get size(): number {
    return this.sessions.size + this.queue.length;
  }

  /** For clients that come from now on; what an administrator has changed is undone. */
  configure(settings: AdminSettings): void {
    this.settings = settings;
    this.boundClients({ maxClients: settings.maxClients, maxAnonymousClients: 0 });
  }

  /** A connection was accepted, from which nothing has been read yet. */
  connected(stream: ByteStream, peer: LocalPeer): void {
    if (peer.uid !== this.ownUid) {
      this.log.warning(
        `refused process ${peer.pid} of uid ${peer.uid} on the admin socket: only uid ${this.ownUid} may use it`,
      );
      refuse(stream, notOwner(this.ownUid));
      return;
    }
    this.queue.push({ stream, peer, connectedAt: Date.now() });
    this.admit();
    if (this.queue.length > this.settings.maxQueuedClients) this.turnAway();
    this.changed();
  }

  /** Ends all sessions. */
  close(reason: string): void {
    clearInterval(this.ticking);
    for (const { stream } of this.queue.splice(0)) stream.destroy();
    for (const session of [...this.sessions.values()]) session.close(reason);
  }

  *clients(): Iterable<AdminClient> {
    for (const { client } of this.sessions.values()) yield client;
  }

  client(id: number): AdminClient | null {
    return this.sessions.get(id)?.client ?? null;
  }

  closeClient(id: number): void {
    this.sessions.get(id)?.close('an administrator disconnected it');
  }

  /** Nobody has to log in here. */
  clientFigures(): ClientFigures {
    return { ...this.bounds, clients: this.sessions.size, anonymous: 0 };
  }

  boundClients(bounds: ClientBounds): void {
    this.bounds = bounds;
    this.admit();
  }

  workerBounds(): WorkerBounds {
    return { minWorkers: 1, maxWorkers: 1 };
  }

  /** The primary process serves administrators, and is not free while it answers this. */
  workerFigures(): Promise<WorkerFigures> {
    let queuedCalls = 0;
    for (const { waitingCalls } of this.sessions.values()) queuedCalls += waitingCalls;
    return Promise.resolve({ ...this.workerBounds(), workers: 1, freeWorkers: 0, queuedCalls });
  }

  boundWorkers(): void {
    throw new AdminError(
      'unsupported',
      'the admin server has one process, which cannot be changed',
    );
  }

  updateTls(): Promise<void> {
    return Promise.reject(new AdminError('failed', 'the admin server has no TLS socket'));
  }

  private admit(): void {
    while (this.sessions.size < this.bounds.maxClients) {
      const caller = this.queue.shift();
      if (caller === undefined) return;
      this.begin(caller);
    }
  }

  private begin({ stream, peer, connectedAt }: Caller): void {
    const client: AdminClient = {
      id: ++this.lastId,
      transport: 'unix',
      connectedAt,
      readOnly: false,
      local: peer,
      remoteAddress: null,
      saslUserName: null,
      x509Name: null,
    };
    const session = new AdminSession(
      client,
      stream,
      this.settings,
      this.administered,
      this.log,
      () => {
        this.sessions.delete(client.id);
        this.admit();
        this.changed();
      },
    );
    this.sessions.set(client.id, session);
    session.start();
  }

  private turnAway(): void {
    this.queue.shift()?.stream.destroy();
    this.log.warning(
      `admin_max_clients (${this.bounds.maxClients}) is reached and admin_max_queued_clients ` +
        `(${this.settings.maxQueuedClients}) wait: turned one away; virt-admin client-list admin shows them`,
    );
  }
}
