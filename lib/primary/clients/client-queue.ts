import { withNews } from '../../native/hang-up.js';
import type { ClientLimits } from './client-limits.js';
import { closeConnection, countOf, patience, type Census, type Client } from './client-registry.js';
import { firstMessage, type FirstMessage } from './first-message.js';

/**
 * How many more than max_queued_clients may wait to be turned away, as a part of it. Whoever is
 * turned away may be back at once, and a thousand that do so would leave us time for nobody else.
 */
const overflow = 1 / 2;

/** How many of these are turned away at a time. */
const turnedAwayAtOnce = 10;

/** Accepted clients that no worker has yet, oldest first, and who of them is one too many. */
export class ClientQueue {
  private clients: Client[] = [];

  constructor(
    /** Those in force. */
    private readonly limits: () => ClientLimits,
    /** Called for each that was one too many, and was closed. */
    private readonly onTurnedAway: () => void,
  ) {}

  get length(): number {
    return this.clients.length;
  }

  get all(): readonly Client[] {
    return this.clients;
  }

  add(client: Client): void {
    this.clients.push(client);
  }

  /** Puts clients before all others. */
  putFirst(clients: readonly Client[]): void {
    this.clients = [...clients, ...this.clients];
  }

  /** Removes those of whom `isDone`, which is asked in order, says that they wait no more. */
  removeIf(isDone: (client: Client) => boolean): void {
    this.clients = this.clients.filter((client) => !isDone(client));
  }

  /** Closes all. */
  close(): void {
    this.clients.splice(0).forEach(closeConnection);
  }

  /**
   * Anonymous clients that have sent something, or left, or waited for too long; those first that
   * are to be served first.
   */
  anonymousWithNews(census: Census): Client[] {
    const now = Date.now();
    const due = this.clients.filter(({ loggedIn, nextCheck }) => !loggedIn && nextCheck <= now);
    const news = withNews(due.map(({ connection }) => connection?.fd ?? -1));
    const since = now - this.limits().loginTimeout;
    const anonymous = due
      .filter(({ connectedAt }, index) => news[index] === true || connectedAt < since)
      .reverse();
    if (census.size === 1) return anonymous;
    return anonymous.sort((one, other) => countOf(one, census) - countOf(other, census));
  }

  /** Counts those as gone that have waited in vain for as long as a login may take. */
  firstMessageOf(client: Client): FirstMessage {
    const { connection, introduction, connectedAt } = client;
    if (connection === null || connectedAt < Date.now() - this.limits().loginTimeout) return 'gone';
    const first = firstMessage(connection.fd, introduction.transport);
    client.hasSpoken = first === 'whole';
    if (first === 'partial') client.nextCheck = Date.now() + patience.silent;
    return first;
  }

  /** Keeps the queue within its bound, but for those that are turned away in their time. */
  shorten(): void {
    const longest = this.limits().maxQueuedClients * (1 + overflow);
    while (this.clients.length > longest) this.turnOneAway();
  }

  /** Turns some of those away that are too many, once in a while. */
  turnSomeAway(): void {
    const surplus = this.clients.length - this.limits().maxQueuedClients;
    for (let left = Math.min(surplus, turnedAwayAtOnce); left > 0; left--) this.turnOneAway();
  }

  private turnOneAway(): void {
    for (const client of this.clients.splice(this.longestInVain(), 1)) closeConnection(client);
    this.onTurnedAway();
  }

  /**
   * Where in the queue the one is that has waited in vain longest: who has said nothing that could
   * be served, though it had time to, before all others.
   */
  private longestInVain(): number {
    const since = Date.now() - patience.silent;
    const silent = this.clients.findIndex(
      (client) =>
        !client.hasSpoken && client.connectedAt <= since && this.firstMessageOf(client) !== 'whole',
    );
    return Math.max(silent, 0);
  }
}
