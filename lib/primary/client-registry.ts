import {
  loginStages,
  type ClientIntroduction,
  type LoginStage,
  type ProvenIdentity,
} from '../control/messages.js';
import type { Connection } from './listener.js';
import type { WorkerProcess } from './worker-process.js';

/** A connection from its accepting to its end, whichever worker serves it. */
export interface Client {
  readonly introduction: ClientIntroduction;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Our copy of the connection, until a worker has its own or it is closed. */
  connection: Connection | null;
  /** The worker it was given to. */
  worker: WorkerProcess | null;
  /** When its worker took it, or heard of it before it had logged in; null until taken. Milliseconds since the epoch. */
  silentSince: number | null;
  stage: LoginStage;
  loggedIn: boolean;
  /** Null until a login has shown it. */
  identity: ProvenIdentity | null;
}

/**
 * Milliseconds that a client may be silent at each stage before it has to give way. A real one begins as soon as it is
 * connected, and goes on with its handshake after a round trip, but its user may have to type a password.
 */
const patience: Readonly<Record<LoginStage, number>> = {
  silent: 100,
  handshake: 500,
  login: 5000,
};

function patienceWith({ stage, introduction }: Client): number {
  // Local users may be at a prompt of polkit's, which has its own end.
  if (stage === 'login' && introduction.transport === 'unix') return Infinity;
  return patience[stage];
}

const stageOf = ({ stage }: Client): number => loginStages.indexOf(stage);

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

  /** Who gives way to a new client at `now`: of those silent for too long the oldest of the earliest stage, if any. */
  leastWelcome(now: number): Client | null {
    let least: Client | null = null;
    for (const client of this.anonymous) {
      if (now - (client.silentSince ?? now) < patienceWith(client)) continue;
      if (least === null || stageOf(client) < stageOf(least)) least = client;
    }
    return least;
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
