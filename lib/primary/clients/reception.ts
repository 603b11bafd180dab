import { setTimeout as pause } from 'node:timers/promises';
import type { Configuration } from '../../config/configuration.js';
import {
  beginsAnonymous,
  type ClientIntroduction,
  type ClientMessage,
  type RefusalReason,
  type Transport,
} from '../../control/messages.js';
import { transportTraits } from '../../control/transports.js';
import type { Logger } from '../../logging/logger.js';
import { Tally } from '../../logging/tally.js';
import { isGone, withNews } from '../../native/hang-up.js';
import { errorText } from '../../error-text.js';
import type { SocketHandle } from '../../transport/socket-stream.js';
import { ClientRegistry, countOf, patience, type Census, type Client } from './client-registry.js';
import { firstMessage, type FirstMessage } from './first-message.js';
import type { Connection, HandleAddress, Listener } from '../listeners/listener.js';
import { localPeer } from './local-peer.js';
import { originOf } from './origin.js';
import type { WorkerProcess } from '../workers/worker-process.js';

/**
 * Source: max_clients, max_anonymous_clients and max_queued_clients of virtproxyd.conf, and
 * login_timeout.
 */
export interface ClientLimits {
  readonly maxClients: number;
  /** 0: no limit. */
  readonly maxAnonymousClients: number;
  /** Accepted connections that may wait for a place. */
  readonly maxQueuedClients: number;
  /** Milliseconds that a client may take to log in. */
  readonly loginTimeout: number;
}

export function clientLimits({ conf, cluster }: Configuration): ClientLimits {
  return {
    maxClients: conf.max_clients,
    maxAnonymousClients: conf.max_anonymous_clients,
    maxQueuedClients: Math.max(conf.max_queued_clients, 1),
    loginTimeout: cluster.login_timeout * 1000,
  };
}

/** Milliseconds between looks whether there is room for those that wait. */
const retryInterval = 50;

/**
 * Which part of max_anonymous_clients is kept for newcomers. Those that were let in at once may
 * all be evicted at once, and until then there would be no place for anybody.
 */
const keptPlaces = 1 / 4;

/** Milliseconds for which a client is a newcomer. */
const freshness = patience.handshake;

/**
 * How many more than max_queued_clients may wait to be turned away, as a part of it. Whoever is
 * turned away may be back at once, and a thousand that do so would leave us time for nobody else.
 */
const overflow = 1 / 2;

/** How many of these are turned away in one look. */
const turnedAwayAtOnce = 10;

/** Gives a client to a worker; null when none is ready. */
export type HandOver = (
  introduction: ClientIntroduction,
  handle: SocketHandle,
) => WorkerProcess | null;

/**
 * Takes accepted connections in and sees that each gets to a worker, within the limits, which count
 * over all sockets and workers. At max_clients new ones wait for a place, first come, first served.
 * At max_anonymous_clients the oldest silent connection is evicted for a new one that has something
 * to say, so that strangers who never log in cannot shut anybody out. Root and the user the daemon
 * runs as are let in over the UNIX sockets whatever the limits say, to put things right.
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
    const { maxQueuedClients, maxClients, maxAnonymousClients } = this.limits;
    this.log.warning(
      `max_clients (${maxClients}) or max_anonymous_clients (${maxAnonymousClients}) is reached and ` +
        `max_queued_clients (${maxQueuedClients}) wait: turned away ${count} so far; raise what is too low`,
    );
  });
  private readonly evicted = new Tally((count) => {
    this.log.warning(
      `max_anonymous_clients (${this.limits.maxAnonymousClients}) have not logged in: ${count} silent connections were evicted ` +
        'for new ones so far; if these are no strangers raise max_anonymous_clients',
    );
  });
  private retry: NodeJS.Timeout | null = null;
  private soon: NodeJS.Immediate | null = null;

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
  onConnection(listener: Listener, connection: Connection): void {
    this.accepted[listener.settings.transport]++;
    const introduction = this.introduce(listener, connection);
    if (introduction === null) {
      connection.close();
      return;
    }
    const client: Client = {
      introduction,
      connectedAt: Date.now(),
      origin: originOf(introduction),
      hasSpoken: false,
      nextCheck: 0,
      connection,
      worker: null,
      silentSince: null,
      stage: 'silent',
      isBeingEvicted: false,
      loggedIn: !beginsAnonymous(introduction),
      identity: null,
    };
    client.loggedIn ||= this.isOwn(client);
    this.waiting.push(client);
    // Of strangers many may come at once, and none of those that wait gets a place by their coming.
    if (this.isInCrowd(client)) this.tryAgainLater();
    else this.serveWaiting();
    this.turnAway();
    this.changed();
  }

  /** A worker says something of a client. */
  onWorkerNews(worker: WorkerProcess, message: ClientMessage): void {
    const client = this.clients.get(message.id);
    if (client?.worker !== worker) return;
    const wasCrowded = this.isCrowded;
    switch (message.kind) {
      case 'taken':
        closeOurs(client);
        client.silentSince = Date.now();
        return;
      case 'standing':
        client.silentSince = Date.now() - message.silentFor;
        client.stage = message.stage;
        client.isBeingEvicted = false;
        return;
      case 'loggedIn':
        this.clients.onLogin(client, message);
        break;
      case 'closed':
        if (message.refusal !== undefined) this.refused[message.refusal]++;
        if (message.refusal === 'gave_way') this.evicted.add();
        closeOurs(client);
        this.clients.remove(client);
        break;
    }
    if (wasCrowded) this.serveSoon();
    else this.serveWaiting();
    this.changed();
  }

  /** A worker is gone: clients it had not taken go to others, the rest went with it. */
  onWorkerLost(worker: WorkerProcess): void {
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

  /**
   * Gives clients that wait to workers, as far as limits and workers allow, first come, first
   * served.
   */
  serveWaiting(): void {
    if (this.waiting.length === 0) return;
    this.waiting = this.waiting.filter((client) => this.isInCrowd(client) || !this.serve(client));
    this.tryAgainLater();
  }

  /** Gives all that wait to workers, whatever the limits say. Resolves when none waits any more. */
  async serveAll(): Promise<void> {
    this.limits = {
      ...this.limits,
      maxClients: Infinity,
      maxAnonymousClients: 0,
      maxQueuedClients: Infinity,
    };
    this.serveWaiting();
    while (this.waiting.length > 0) await pause(retryInterval);
  }

  /** Turns away whoever still waits. */
  close(): void {
    if (this.retry !== null) clearTimeout(this.retry);
    if (this.soon !== null) clearImmediate(this.soon);
    this.waiting.splice(0).forEach(closeOurs);
  }

  /** Whether the client is a stranger for whom another would have to go. */
  private isInCrowd(client: Client): boolean {
    return !client.loggedIn && this.isCrowded;
  }

  /**
   * Lets strangers in who wait because as many are there as may be, and has others evicted for
   * them. Only those count whose first message is there, as a real client sends it as soon as it is
   * connected. Those of whom fewest are there come first, and then the newest, as the others have
   * been waiting for long already.
   */
  private serveCrowd(): void {
    const census = this.clients.census(this.waiting);
    const leaving = new Set<Client>();
    let onTheirWay = this.clients.evictingSize;
    for (const client of this.strangersWithNews(census)) {
      const first = this.firstMessageOf(client);
      if (first === 'partial') continue;
      if (first === 'gone') {
        closeOurs(client);
        leaving.add(client);
      } else if (this.hasPlaceFor(client)) {
        if (!this.serve(client)) break;
        leaving.add(client);
      } else if (onTheirWay > 0) {
        onTheirWay--;
      } else if (!this.evictFor(client, census)) {
        break;
      }
    }
    this.waiting = this.waiting.filter((client) => !leaving.has(client));
  }

  /**
   * Strangers that wait and have sent something, or left, or waited for too long; those first that
   * are to be served first.
   */
  private strangersWithNews(census: Census): Client[] {
    const now = Date.now();
    const due = this.waiting.filter(({ loggedIn, nextCheck }) => !loggedIn && nextCheck <= now);
    const news = withNews(due.map(({ connection }) => connection?.fd ?? -1));
    const since = now - this.limits.loginTimeout;
    const strangers = due
      .filter(({ connectedAt }, index) => news[index] === true || connectedAt < since)
      .reverse();
    if (census.size === 1) return strangers;
    return strangers.sort((one, other) => countOf(one, census) - countOf(other, census));
  }

  /** Counts those as gone that have waited in vain for as long as a login may take. */
  private firstMessageOf(client: Client): FirstMessage {
    const { connection, introduction, connectedAt } = client;
    if (connection === null || connectedAt < Date.now() - this.limits.loginTimeout) return 'gone';
    const first = firstMessage(connection.fd, introduction.transport);
    client.hasSpoken = first === 'whole';
    if (first === 'partial') client.nextCheck = Date.now() + patience.silent;
    return first;
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
    const welcome = this.isOwn(client) || this.clients.size < this.limits.maxClients;
    const worker = welcome ? this.handOver(introduction, connection) : null;
    if (worker === null) return false;
    client.worker = worker;
    this.clients.add(client);
    return true;
  }

  /** Whether strangers have to say something before they get a place. */
  private get isCrowded(): boolean {
    const { maxAnonymousClients } = this.limits;
    return (
      maxAnonymousClients > 0 && this.placesLeft <= Math.floor(maxAnonymousClients * keptPlaces)
    );
  }

  /** How many more strangers may be let in. */
  private get placesLeft(): number {
    return this.limits.maxAnonymousClients - this.clients.anonymousSize;
  }

  /** Whether a stranger may be let in that has said something. */
  private hasPlaceFor({ connectedAt }: Client): boolean {
    if (!this.isCrowded) return true;
    return connectedAt > Date.now() - freshness && this.placesLeft > 0;
  }

  private isOwn({ introduction: { local } }: Client): boolean {
    return local !== null && (local.uid === 0 || local.uid === this.ownUid);
  }

  /** Looks at those that wait, but once for all that happens in one turn of the event loop. */
  private serveSoon(): void {
    this.soon ??= setImmediate(() => {
      this.soon = null;
      this.serveCrowd();
      this.serveWaiting();
    });
  }

  /**
   * Nobody tells when a connection has been silent for too long, nor when one that waits has sent
   * something.
   */
  private tryAgainLater(): void {
    if (this.waiting.length === 0 || this.retry !== null) return;
    this.retry = setTimeout(() => {
      this.retry = null;
      if (this.isCrowded) this.serveCrowd();
      this.serveWaiting();
      this.turnSomeAway();
    }, retryInterval);
  }

  /**
   * Has somebody evicted for the newcomer; whether it may be only its worker can say. False when
   * there is nobody.
   */
  private evictFor(newcomer: Client, census: Census): boolean {
    const { maxClients, maxAnonymousClients } = this.limits;
    if (this.clients.size > maxClients) return false;
    const candidate = this.clients.evictionCandidate(newcomer, census, Date.now());
    if (candidate === null) return false;
    const { client } = candidate;
    client.isBeingEvicted = true;
    client.worker?.send({
      kind: 'evict',
      id: client.introduction.id,
      stage: client.stage,
      patience: candidate.patience,
      reason: `evicted for a new client: ${maxAnonymousClients} have not logged in (max_anonymous_clients)`,
    });
    return true;
  }

  /** Keeps the queue within its bound, but for those that are turned away in their time. */
  private turnAway(): void {
    const longest = this.limits.maxQueuedClients * (1 + overflow);
    while (this.waiting.length > longest) this.turnOneAway();
  }

  private turnSomeAway(): void {
    const { maxQueuedClients } = this.limits;
    for (
      let count = 0;
      count < turnedAwayAtOnce && this.waiting.length > maxQueuedClients;
      count++
    ) {
      this.turnOneAway();
    }
  }

  private turnOneAway(): void {
    for (const client of this.waiting.splice(this.longestInVain(), 1)) closeOurs(client);
    this.refused.queue_full++;
    this.turnedAway.add();
  }

  /**
   * Where in the queue the one is that has waited in vain longest: who has said nothing that could
   * be served, though it had time to, before all others.
   */
  private longestInVain(): number {
    const since = Date.now() - patience.silent;
    const silent = this.waiting.findIndex(
      (client) =>
        !client.hasSpoken && client.connectedAt <= since && this.firstMessageOf(client) !== 'whole',
    );
    return Math.max(silent, 0);
  }

  private introduce(listener: Listener, connection: Connection): ClientIntroduction | null {
    const { transport, auth, readOnly, name } = listener.settings;
    const { isLocal } = transportTraits[transport];
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
      const reason = errorText(error);
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
