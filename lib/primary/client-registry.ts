import type { Socket } from 'node:net';
import type { ClientIntroduction } from '../control/messages.js';
import type { WorkerProcess } from './worker-process.js';

/** A connection from its accepting to its end, whichever worker serves it. */
export interface Client {
  readonly introduction: ClientIntroduction;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Our copy of the socket, until a worker has its own. */
  socket: Socket | null;
  /** The worker it was given to; null while it waits for one. */
  worker: WorkerProcess | null;
  loggedIn: boolean;
}

/** Every client there is, over all sockets and workers. */
export class ClientRegistry {
  private readonly byId = new Map<number, Client>();
  private readonly anonymous = new Set<Client>();
  private lastId = 0;

  /** Ids are never used twice. */
  nextId(): number {
    return ++this.lastId;
  }

  get size(): number {
    return this.byId.size;
  }

  /** Those that have not logged in. */
  get anonymousSize(): number {
    return this.anonymous.size;
  }

  add(client: Client): void {
    this.byId.set(client.introduction.id, client);
    this.anonymous.add(client);
  }

  get(id: number): Client | undefined {
    return this.byId.get(id);
  }

  /** Oldest first. */
  all(): Iterable<Client> {
    return this.byId.values();
  }

  loggedIn(client: Client): void {
    client.loggedIn = true;
    this.anonymous.delete(client);
  }

  remove(client: Client): void {
    this.byId.delete(client.introduction.id);
    this.anonymous.delete(client);
    client.socket?.destroy();
    client.socket = null;
    if (client.worker !== null) client.worker.clients--;
  }
}
