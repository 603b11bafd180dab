import {
  beginsAnonymous,
  loginStages,
  type ClientIntroduction,
  type LoginStage,
  type ProvenIdentity,
} from '../../control/messages.js';
import { transportTraits } from '../../control/transports.js';
import type { Connection } from '../listeners/connection.js';
import type { WorkerProcess } from '../workers/worker-process.js';
import { originOf } from './origin.js';

/** A connection from its accepting to its end, whichever worker serves it. */
export interface Client {
  readonly introduction: ClientIntroduction;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Its first message was seen, whole, while it waited. */
  hasSpoken: boolean;
  /** When what it sent while it waits is checked again. Milliseconds since the epoch. */
  nextCheck: number;
  /** Our copy of the connection, until a worker has its own or it is closed. */
  connection: Connection | null;
  /** The worker it was given to. */
  worker: WorkerProcess | null;
  /** Whose connection it is when those of the same are counted. */
  readonly origin: string;
  /**
   * Since when its worker waits for it, as far as known before it has logged in; null until taken.
   * Milliseconds since the epoch.
   */
  silentSince: number | null;
  stage: LoginStage;
  /** Its worker was asked to evict it, and has not answered. */
  isBeingEvicted: boolean;
  loggedIn: boolean;
  /** Null until a login has shown it. */
  identity: ProvenIdentity | null;
  /** Ends what others are being asked about it. */
  onLeft: (() => void) | null;
}

/** One that has just been accepted. */
export function newClient(introduction: ClientIntroduction, connection: Connection): Client {
  return {
    introduction,
    connectedAt: Date.now(),
    hasSpoken: false,
    nextCheck: 0,
    connection,
    worker: null,
    origin: originOf(introduction),
    silentSince: null,
    stage: 'silent',
    isBeingEvicted: false,
    loggedIn: !beginsAnonymous(introduction),
    identity: null,
    onLeft: null,
  };
}

/** Closes our copy of its connection, if there is one yet. */
export function closeConnection(client: Client): void {
  client.connection?.close();
  client.connection = null;
}

/**
 * Milliseconds that it may be a client's turn at each stage before it may be evicted. A real one
 * begins as soon as it is connected, and goes on with its handshake after a round trip, but its
 * user may have to type a password.
 */
export const patience: Readonly<Record<LoginStage, number>> = {
  silent: 100,
  handshake: 500,
  login: 5000,
};

/** How many times as many connections as another's are a flood. */
const floodFactor = 10;

/** How much longer one that is not of a flood may take when one that is wants its place. */
const leniency = 10;

/** How many connections that have not logged in there are of each origin. */
export type Census = ReadonlyMap<string, number>;

/**
 * A client that may be evicted, if it has been its turn at its stage for as many milliseconds as
 * `patience` says.
 */
export interface Candidate {
  readonly client: Client;
  readonly patience: number;
}

export const countOf = ({ origin }: Client, census: Census): number => census.get(origin) ?? 0;

function patienceWith(client: Client, newcomer: Client, census: Census): number {
  const { stage, introduction } = client;
  // Local users may be at a prompt of polkit's, which has its own end.
  if (stage === 'login' && transportTraits[introduction.transport].isLocal) return Infinity;
  const isOfFlood = countOf(newcomer, census) > floodFactor * countOf(client, census);
  return isOfFlood ? leniency * patience[stage] : patience[stage];
}

/** Whether the one has to go before the other, which is older. */
function goesFirst(one: Client, other: Client, census: Census): boolean {
  const more = countOf(one, census) - countOf(other, census);
  return more > 0 || (more === 0 && stageOf(one) < stageOf(other));
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

  /** A client that a worker speaks of, if it is that worker's: of others it has nothing to say. */
  ofWorker(worker: WorkerProcess, id: number): Client | undefined {
    const client = this.byId.get(id);
    return client?.worker === worker ? client : undefined;
  }

  /** Counts those that have not logged in, `waiting` included, by origin. */
  census(waiting: Iterable<Client>): Census {
    const census = new Map<string, number>();
    for (const clients of [this.anonymous, waiting]) {
      for (const client of clients) {
        if (!client.loggedIn) census.set(client.origin, countOf(client, census) + 1);
      }
    }
    return census;
  }

  /** Those whose workers have been asked to evict them and have not answered. */
  get evictingSize(): number {
    let size = 0;
    for (const { isBeingEvicted } of this.anonymous) if (isBeingEvicted) size++;
    return size;
  }

  /**
   * Who is to be evicted for a new client at `now`: of those whose turn it has been for too
   * long one of whom most have not logged in, of these the oldest of the earliest stage; null when
   * there is none.
   */
  evictionCandidate(newcomer: Client, census: Census, now: number): Candidate | null {
    let first: Candidate | null = null;
    for (const client of this.anonymous) {
      if (client.isBeingEvicted || client.silentSince === null) continue;
      const patience = patienceWith(client, newcomer, census);
      if (now - client.silentSince < patience) continue;
      if (first === null || goesFirst(client, first.client, census)) first = { client, patience };
    }
    return first;
  }

  /** What was said first counts: a worker cannot give a client rights later. */
  onLogin(client: Client, identity: ProvenIdentity): void {
    client.identity ??= identity;
    client.loggedIn = true;
    this.anonymous.delete(client);
  }

  remove(client: Client): void {
    this.byId.delete(client.introduction.id);
    this.anonymous.delete(client);
    client.onLeft?.();
    client.worker?.onClientGone();
  }
}
