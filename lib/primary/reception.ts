import type { Socket } from 'node:net';
import type { ClientIntroduction, WorkerMessage } from '../control/messages.js';
import type { Logger } from '../logging/logger.js';
import { handleOf } from '../transport/socket-stream.js';
import { ClientRegistry, type Client } from './client-registry.js';
import type { Listener } from './listener.js';
import { localPeer } from './local-peer.js';
import type { WorkerPool } from './worker-pool.js';
import type { WorkerProcess } from './worker-process.js';

/** How many clients may be there at once. Source: max_clients and max_anonymous_clients of virtproxyd.conf. */
export interface ClientLimits {
  maxClients: number;
  maxAnonymous: number;
}

/** Takes accepted connections in, within the limits, and sees that each gets to a worker. */
export class Reception {
  readonly clients = new ClientRegistry();
  /** Accepted, but without a worker yet or beyond a limit; oldest first. */
  private readonly waiting: Client[] = [];

  constructor(
    private readonly limits: ClientLimits,
    private readonly pool: () => WorkerPool,
    private readonly log: Logger,
    private readonly changed: () => void,
  ) {}

  /** A listener accepted a connection. */
  connected(listener: Listener, socket: Socket): void {
    const introduction = this.introduce(listener, socket);
    if (introduction === null) {
      socket.destroy();
      return;
    }
    socket.on('error', () => undefined);
    const client: Client = {
      introduction,
      connectedAt: Date.now(),
      socket,
      worker: null,
      loggedIn: false,
    };
    this.waiting.push(client);
    this.serveWaiting();
    if (client.worker === null) {
      this.log.debug(`client ${introduction.id} waits: ${this.fullness()}`);
    }
    this.changed();
  }

  /** A worker has something to say of a client. */
  told(worker: WorkerProcess, message: WorkerMessage): void {
    if (message.kind === 'ready' || message.kind === 'log') return;
    const client = this.clients.get(message.id);
    if (client?.worker !== worker) return;
    switch (message.kind) {
      case 'taken':
        client.socket?.destroy();
        client.socket = null;
        break;
      case 'loggedIn':
        this.clients.loggedIn(client);
        break;
      case 'closed':
        this.clients.remove(client);
        break;
    }
    this.serveWaiting();
    this.changed();
  }

  /** A worker is gone: clients it had not taken yet go to others, the rest went with it. */
  lost(worker: WorkerProcess): void {
    for (const client of [...this.clients.all()]) {
      if (client.worker !== worker) continue;
      const { socket } = client;
      client.socket = null;
      this.clients.remove(client);
      if (socket === null) continue;
      client.socket = socket;
      client.worker = null;
      this.waiting.push(client);
    }
    this.serveWaiting();
    this.changed();
  }

  /** Gives clients that wait to workers, as far as limits and workers allow. */
  serveWaiting(): void {
    while (this.waiting.length > 0 && this.hasRoom()) {
      const client = this.waiting[0];
      if (client === undefined) return;
      if (client.socket === null || client.socket.destroyed) {
        this.waiting.shift();
        continue;
      }
      const worker = this.pool().hand(client.introduction, handleOf(client.socket));
      if (worker === null) return;
      this.waiting.shift();
      client.worker = worker;
      this.clients.add(client);
    }
  }

  /** Clients, those that wait included. */
  get size(): number {
    return this.clients.size + this.waiting.length;
  }

  /** Turns away whoever still waits for a worker. */
  close(): void {
    for (const { socket } of this.waiting.splice(0)) socket?.destroy();
  }

  private hasRoom(): boolean {
    const { maxClients, maxAnonymous } = this.limits;
    return this.clients.size < maxClients && this.clients.anonymousSize < maxAnonymous;
  }

  private fullness(): string {
    const { maxClients, maxAnonymous } = this.limits;
    if (this.clients.size >= maxClients) return `max_clients (${maxClients}) is reached`;
    if (this.clients.anonymousSize >= maxAnonymous) {
      return `max_anonymous_clients (${maxAnonymous}) is reached`;
    }
    return 'no worker is ready';
  }

  private introduce(listener: Listener, socket: Socket): ClientIntroduction | null {
    const { transport, auth, readOnly, name } = listener.settings;
    try {
      const remote = transport !== 'unix';
      return {
        kind: 'client',
        id: this.clients.nextId(),
        transport,
        auth,
        readOnly,
        local: remote ? null : localPeer(handleOf(socket).fd),
        remoteAddress: remote ? `${socket.remoteAddress};${socket.remotePort}` : null,
        localAddress: remote ? `${socket.localAddress};${socket.localPort}` : null,
      };
    } catch (error) {
      this.log.warning(`a client of ${name} left before it could be identified: ${String(error)}`);
      return null;
    }
  }
}
