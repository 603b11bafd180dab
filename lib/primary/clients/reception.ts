/**
 * The room of clients as the primary sees them: who they are, who has a place, who waits and who is
 * evicted. What enters holds for all clients of all workers together; what one client's bytes mean
 * only its worker knows.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type {
  ClientIntroduction,
  ClientMessage,
  RefusalReason,
  Transport,
} from '../../control/messages.js';
import { errorText } from '../../error-text.js';
import type { Logger } from '../../logging/logger.js';
import { Tally } from '../../logging/tally.js';
import { isGone } from '../../native/hang-up.js';
import type { SocketHandle } from '../../transport/node-socket.js';
import type { Connection } from '../listeners/connection.js';
import type { Listener } from '../listeners/listener.js';
import type { WorkerProcess } from '../workers/worker-process.js';
import type { ClientLimits } from './client-limits.js';
import { ClientQueue } from './client-queue.js';
import {
  ClientRegistry,
  closeConnection,
  newClient,
  patience,
  type Census,
  type Client,
} from './client-registry.js';
import { introductionOf } from './introduction.js';

/** Milliseconds between checks whether there is room for those that wait. */
const retryInterval = 50;

/**
 * Which part of max_anonymous_clients is kept for newcomers. Those that were let in at once may
 * all be evicted at once, and until then there would be no place for anybody.
 */
const keptPlaces = 1 / 4;

/** Milliseconds for which a client is a newcomer. */
const freshness = patience.handshake;

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
  private readonly waiting = new ClientQueue(
    () => this.limits,
    () => this.onTurnedAway(),
  );
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
    return this.waiting.all;
  }

  /** A listener accepted a connection. */
  onConnection(listener: Listener, connection: Connection): void {
    this.accepted[listener.settings.transport]++;
    const introduction = this.introduce(listener, connection);
    if (introduction === null) {
      connection.close();
      return;
    }
    const client = newClient(introduction, connection);
    client.loggedIn ||= this.isOwn(client);
    this.waiting.add(client);
    // Of strangers many may come at once, and none of those that wait gets a place by their coming.
    if (this.mustSpeakFirst(client)) this.tryAgainLater();
    else this.serveWaiting();
    this.waiting.shorten();
    this.changed();
  }

  /** A worker says something of a client. */
  onWorkerNews(worker: WorkerProcess, message: ClientMessage): void {
    const client = this.clients.ofWorker(worker, message.id);
    if (client === undefined) return;
    const werePlacesScarce = this.arePlacesScarce;
    switch (message.kind) {
      case 'taken':
        closeConnection(client);
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
        closeConnection(client);
        this.clients.remove(client);
        break;
    }
    if (werePlacesScarce) this.serveSoon();
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
    this.waiting.putFirst(orphans);
    this.serveWaiting();
    this.changed();
  }

  /**
   * Gives clients that wait to workers, as far as limits and workers allow, first come, first
   * served.
   */
  serveWaiting(): void {
    if (this.waiting.length === 0) return;
    this.waiting.removeIf((client) => !this.mustSpeakFirst(client) && this.serve(client));
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
    this.waiting.close();
  }

  /** Whether the client gets a place only once its first message has arrived. */
  private mustSpeakFirst(client: Client): boolean {
    return !client.loggedIn && this.arePlacesScarce;
  }

  /**
   * Lets anonymous clients in that have said something, while places are scarce, and has others
   * evicted for them: a real client sends its first message as soon as it is connected. Those of
   * whom fewest are there come first, and then the newest, as the others have been waiting for long
   * already.
   */
  private serveSpeakers(): void {
    const census = this.clients.census(this.waiting.all);
    const leaving = new Set<Client>();
    let onTheirWay = this.clients.evictingSize;
    for (const client of this.waiting.anonymousWithNews(census)) {
      const first = this.waiting.firstMessageOf(client);
      if (first === 'partial') continue;
      if (first === 'gone') {
        closeConnection(client);
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
    this.waiting.removeIf((client) => leaving.has(client));
  }

  /** Whether the client needs no place in the queue any more. */
  private serve(client: Client): boolean {
    const { connection, introduction } = client;
    if (connection === null) return true;
    // Handing over takes a worker's time; of those that have waited many may have left.
    if (client.connectedAt < Date.now() - retryInterval && isGone(connection.fd)) {
      closeConnection(client);
      return true;
    }
    const isAllowed = this.isOwn(client) || this.clients.size < this.limits.maxClients;
    const worker = isAllowed ? this.handOver(introduction, connection) : null;
    if (worker === null) return false;
    client.worker = worker;
    this.clients.add(client);
    return true;
  }

  /** Whether anonymous clients have to say something before they get a place. */
  private get arePlacesScarce(): boolean {
    const { maxAnonymousClients } = this.limits;
    return (
      maxAnonymousClients > 0 && this.placesLeft <= Math.floor(maxAnonymousClients * keptPlaces)
    );
  }

  /** How many more anonymous clients may be let in. */
  private get placesLeft(): number {
    return this.limits.maxAnonymousClients - this.clients.anonymousSize;
  }

  /** Whether an anonymous client that has said something may be let in. */
  private hasPlaceFor({ connectedAt }: Client): boolean {
    if (!this.arePlacesScarce) return true;
    return connectedAt > Date.now() - freshness && this.placesLeft > 0;
  }

  private isOwn({ introduction: { local } }: Client): boolean {
    return local !== null && (local.uid === 0 || local.uid === this.ownUid);
  }

  /** Serves those that wait, but once for all that happens in one turn of the event loop. */
  private serveSoon(): void {
    this.soon ??= setImmediate(() => {
      this.soon = null;
      this.serveSpeakers();
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
      if (this.arePlacesScarce) this.serveSpeakers();
      this.serveWaiting();
      this.waiting.turnSomeAway();
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

  private onTurnedAway(): void {
    this.refused.queue_full++;
    this.turnedAway.add();
  }

  private introduce(listener: Listener, connection: Connection): ClientIntroduction | null {
    try {
      return introductionOf(this.clients.nextId(), listener.settings, connection);
    } catch (error) {
      const reason = errorText(error);
      const { name } = listener.settings;
      this.log.debug(`a client of ${name} left before it could be identified: ${reason}`);
      return null;
    }
  }
}
