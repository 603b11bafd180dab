import type { Socket } from 'node:net';
import type { ClientIntroduction, ProvenIdentity } from '../control/messages.js';
import type { WorkerProcess } from './worker-process.js';

/** A connection from its accepting to its end, whichever worker serves it. */
export interface Client {
  readonly introduction: ClientIntroduction;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Our copy of the socket, until a worker has its own. */
  socket: Socket | null;
  /** The worker it was given to. */
  worker: WorkerProcess | null;
  /** When it last sent a frame or finished a TLS handshake before logging in; null: never. */
  spokeAt: number | null;
  loggedIn: boolean;
  /** Null until a login has shown it. */
  identity: ProvenIdentity | null;
}

/** Milliseconds a connection may be silent before it has said anything at all. */
export const strangerPatience = 100;

/** The same for a remote one that has begun to log in. Local ones may be waiting for their user at a polkit prompt. */
const loginPatience = 5000;

function patienceWith({ spokeAt, introduction }: Client): number {
  if (spokeAt === null) return strangerPatience;
  return introduction.transport === 'unix' ? Infinity : loginPatience;
}

/** Every client that workers serve, over all sockets. */
export class ClientRegistry {
  private readonly byId = new Map<number, Client>();
  /** Those that have not logged in, oldest first. */
  private readonly anonymous = new Set<Client>();
  private lastId = 0;

  /** Ids are never used twice. */
  nextId(): number {
    return ++this.lastId;
  }

  get size(): number {
    return this.byId.size;
  }

  get anonymousSize(): number {
    return this.anonymous.size;
  }

  /** Oldest first. */
  get all(): Iterable<Client> {
    return this.byId.values();
  }

  add(client: Client): void {
    this.byId.set(client.introduction.id, client);
    if (!client.loggedIn) this.anonymous.add(client);
  }

  get(id: number): Client | undefined {
    return this.byId.get(id);
  }

  /** Who gives way to a new client at `now`: the oldest of those silent for too long, if any. */
  leastWelcome(now: number): Client | null {
    for (const client of this.anonymous) {
      if (now - (client.spokeAt ?? client.connectedAt) >= patienceWith(client)) return client;
    }
    return null;
  }

  loggedIn(client: Client, identity: ProvenIdentity): void {
    client.identity = identity;
    client.loggedIn = true;
    this.anonymous.delete(client);
  }

  remove(client: Client): void {
    this.byId.delete(client.introduction.id);
    this.anonymous.delete(client);
    if (client.worker !== null) client.worker.clients--;
  }
}
