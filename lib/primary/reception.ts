import { setTimeout as pause } from 'node:timers/promises';
import type { Configuration } from '../config/configuration.js';
import {
  beginsAnonymous,
  type ClientIntroduction,
  type ClientMessage,
  type RefusalReason,
  type Transport,
} from '../control/messages.js';
import type { Logger } from '../logging/logger.js';
import { Tally } from '../logging/tally.js';
import { isGone } from '../native/hang-up.js';
import type { SocketHandle } from '../transport/socket-stream.js';
import { ClientRegistry, type Client } from './client-registry.js';
import { firstMessage } from './first-message.js';
import type { Connection, HandleAddress, Listener } from './listener.js';
import { localPeer } from './local-peer.js';
import type { WorkerProcess } from './worker-process.js';

/** Source: max_clients, max_anonymous_clients and max_queued_clients of virtproxyd.conf, and login_timeout. */
export interface ClientLimits {
  readonly maxClients: number;
  /** 0: no limit. */
  readonly maxAnonymous: number;
  /** Accepted connections that may wait for a place. */
  readonly maxWaiting: number;
  /** Milliseconds that a client may take to log in. */
  readonly loginTimeout: number;
}

export function clientLimits({ conf, cluster }: Configuration): ClientLimits {
  return {
    maxClients: conf.max_clients,
    maxAnonymous: conf.max_anonymous_clients,
    maxWaiting: Math.max(conf.max_queued_clients, 1),
    loginTimeout: cluster.login_timeout * 1000,
  };
}

/** Milliseconds between looks whether there is room for those that wait. */
const retryInterval = 50;

/** Gives a client to a worker; null when none is ready. */
export type HandOver = (
  introduction: ClientIntroduction,
  handle: SocketHandle,
) => WorkerProcess | null;

/**
 * Takes accepted connections in and sees that each gets to a worker, within the limits, which count over all sockets
 * and workers. At max_clients new ones wait for a place, first come, first served. At max_anonymous_clients the oldest
 * silent connection gives way to a new one that has something to say, so that strangers who never log in cannot shut
 * anybody out. Root and the user the daemon runs as are let in over the UNIX sockets whatever the limits say, to put
 * things right.
 */
export class Reception {
  readonly clients = new ClientRegistry();
  /** Accepted and not given to a worker yet, oldest first. */
  private waiting: Client[] = [];
  private readonly ownUid = process.geteuid?.() ?? 0;
  /** Connections accepted so far. */
  readonly accepted: Record<Transport, number> = { unix: 0, tcp: 0, tls: 0 };
  /** Those that were not let in, by the reason. */
  readonly refused: Record<RefusalReason, number> = {
    queue_full: 0,
    gave_way: 0,
    login: 0,
    tls: 0,
    login_timeout: 0,
  };
  private readonly turnedAway = new Tally((count) => {
    const { maxWaiting, maxClients, maxAnonymous } = this.limits;
    this.log.warning(
      `max_clients (${maxClients}) or max_anonymous_clients (${maxAnonymous}) is reached and ` +
        `max_queued_clients (${maxWaiting}) wait: turned away ${count} so far; raise what is too low`,
    );
  });
  private readonly gaveWay = new Tally((count) => {
    this.log.warning(
      `max_anonymous_clients (${this.limits.maxAnonymous}) have not logged in: ${count} silent connections gave way ` +
        'to new ones so far; if these are no strangers raise max_anonymous_clients',
    );
  });
  private retry: NodeJS.Timeout | null = null;

  constructor(
    public limits: ClientLimits,
    private readonly handOver: HandOver,
    private readonly log: Logger,
    /** Called whenever the number of clients may have changed. */
    private readonly changed: () => void,
  ) {}

  /** Clients, those that wait included. */
  get size(): number {
    return this.clients.size + this.waiting.length;
  }

  /** Clients that were not given to a worker yet, oldest first. */
  get queue(): readonly Client[] {
    return this.waiting;
  }

  /** A listener accepted a connection. */
  connected(listener: Listener, connection: Connection): void {
    this.accepted[listener.settings.transport]++;
    const introduction = this.introduce(listener, connection);
    if (introduction === null) {
      connection.close();
      return;
    }
    const client: Client = {
      introduction,
      connectedAt: Date.now(),
      connection,
      worker: null,
      silentSince: null,
      stage: 'silent',
      loggedIn: !beginsAnonymous(introduction),
      identity: null,
    };
    client.loggedIn ||= this.isOwn(client);
    this.waiting.push(client);
    this.serveWaiting();
    this.turnAway();
    this.changed();
  }

  /** A worker says something of a client. */
  told(worker: WorkerProcess, message: ClientMessage): void {
    const client = this.clients.get(message.id);
    if (client?.worker !== worker) return;
    switch (message.kind) {
      case 'taken':
        closeOurs(client);
        client.silentSince = Date.now();
        return;
      case 'spoke':
        client.silentSince = Date.now();
        client.stage = message.stage;
        return;
      case 'loggedIn':
        this.clients.loggedIn(client, message);
        break;
      case 'closed':
        if (message.refusal !== undefined) this.refused[message.refusal]++;
        closeOurs(client);
        this.clients.remove(client);
        break;
    }
    this.serveWaiting();
    this.changed();
  }

  /** A worker is gone: clients it had not taken go to others, the rest went with it. */
  lost(worker: WorkerProcess): void {
    const orphans: Client[] = [];
    for (const client of [...this.clients.all]) {
      if (client.worker !== worker) continue;
      this.clients.remove(client);
      client.worker = null;
      if (client.connection !== null) orphans.push(client);
    }
    this.waiting = [...orphans, ...this.waiting];
    this.serveWaiting();
    this.changed();
  }

  /** Gives clients that wait to workers, as far as limits and workers allow, first come, first served. */
  serveWaiting(): void {
    if (this.waiting.length === 0) return;
    this.waiting = this.waiting.filter((client) => this.isInCrowd(client) || !this.serve(client));
    this.tryAgainLater();
  }

  /** Gives all that wait to workers, whatever the limits say. Resolves when none waits any more. */
  async serveAll(): Promise<void> {
    this.limits = { ...this.limits, maxClients: Infinity, maxAnonymous: 0, maxWaiting: Infinity };
    this.serveWaiting();
    while (this.waiting.length > 0) await pause(retryInterval);
  }

  /** Turns away whoever still waits. */
  close(): void {
    if (this.retry !== null) clearTimeout(this.retry);
    this.waiting.splice(0).forEach(closeOurs);
  }

  /** Whether the client is a stranger for whom another would have to go. */
  private isInCrowd(client: Client): boolean {
    return !client.loggedIn && this.isFullOfStrangers;
  }

  /**
   * Lets strangers in although as many are there as may be. Only those count whose first message is there, as a real client
   * sends it as soon as it is connected; the newest come first, as the others have been waiting for long already.
   */
  private serveCrowd(): void {
    const leaving = new Set<Client>();
    const since = Date.now() - this.limits.loginTimeout;
    for (const client of this.waiting.toReversed()) {
      const { connection, introduction, connectedAt } = client;
      if (!this.isInCrowd(client)) continue;
      const isLost = connection === null || connectedAt < since;
      const first = isLost ? 'gone' : firstMessage(connection.fd, introduction.transport);
      if (first === 'partial') continue;
      if (first === 'whole' && !this.serve(client)) break;
      if (first === 'gone') closeOurs(client);
      leaving.add(client);
    }
    this.waiting = this.waiting.filter((client) => !leaving.has(client));
  }

  /** Whether the client needs no place in the queue any more. */
  private serve(client: Client): boolean {
    const { connection, introduction } = client;
    if (connection === null) return true;
    // Handing over takes a worker's time; of those that have waited many may have left.
    if (client.connectedAt < Date.now() - retryInterval && isGone(connection.fd)) {
      closeOurs(client);
      return true;
    }
    const welcome = this.isOwn(client) || this.makeRoom(client);
    const worker = welcome ? this.handOver(introduction, connection) : null;
    if (worker === null) return false;
    client.worker = worker;
    this.clients.add(client);
    return true;
  }

  private get isFullOfStrangers(): boolean {
    const { maxAnonymous } = this.limits;
    return maxAnonymous > 0 && this.clients.anonymousSize >= maxAnonymous;
  }

  private isOwn({ introduction: { local } }: Client): boolean {
    return local !== null && (local.uid === 0 || local.uid === this.ownUid);
  }

  private makeRoom(client: Client): boolean {
    const { maxClients, maxAnonymous } = this.limits;
    if (client.loggedIn || !this.isFullOfStrangers) return this.clients.size < maxClients;
    const other = this.clients.leastWelcome(Date.now());
    if (other === null || this.clients.size > maxClients) return false;
    this.giveWay(other, maxAnonymous);
    return true;
  }

  /** Nobody tells when a connection has been silent for too long, nor when one that waits has sent something. */
  private tryAgainLater(): void {
    if (this.waiting.length === 0 || this.retry !== null) return;
    this.retry = setTimeout(() => {
      this.retry = null;
      this.serveCrowd();
      this.serveWaiting();
    }, retryInterval);
  }

  private giveWay(client: Client, limit: number): void {
    const { id } = client.introduction;
    this.refused.gave_way++;
    this.gaveWay.add();
    client.worker?.send({
      kind: 'closeClient',
      id,
      reason: `gave way to a new client: ${limit} have not logged in (max_anonymous_clients)`,
    });
    closeOurs(client);
    this.clients.remove(client);
  }

  /** Keeps the queue within its bound: the oldest goes, since it has waited in vain longest. */
  private turnAway(): void {
    const { maxWaiting } = this.limits;
    while (this.waiting.length > maxWaiting) {
      const oldest = this.waiting.shift();
      if (oldest !== undefined) closeOurs(oldest);
      this.refused.queue_full++;
      this.turnedAway.add();
    }
  }

  private introduce(listener: Listener, connection: Connection): ClientIntroduction | null {
    const { transport, auth, readOnly, name } = listener.settings;
    const isLocal = transport === 'unix';
    try {
      return {
        kind: 'client',
        id: this.clients.nextId(),
        transport,
        auth,
        readOnly,
        local: isLocal ? localPeer(connection.fd) : null,
        remoteAddress: isLocal ? null : saslAddress((its) => connection.getpeername?.(its)),
        localAddress: isLocal ? null : saslAddress((its) => connection.getsockname?.(its)),
      };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.log.debug(`a client of ${name} left before it could be identified: ${reason}`);
      return null;
    }
  }
}

function saslAddress(ask: (address: HandleAddress) => number | undefined): string {
  const its: HandleAddress = {};
  if (ask(its) !== 0) throw new Error('it has no address any more');
  return `${its.address};${its.port}`;
}

function closeOurs(client: Client): void {
  client.connection?.close();
  client.connection = null;
}
