import {
  loginStages,
  type ClientIntroduction,
  type LoginStage,
  type ProvenIdentity,
} from '../../control/messages.js';
import { transportTraits } from '../../control/transports.js';
import type { Connection } from '../listeners/listener.js';
import type { WorkerProcess } from '../workers/worker-process.js';

/** A connection from its accepting to its end, whichever worker serves it. */
export interface Client {
  readonly introduction: ClientIntroduction;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Its first message was seen, whole, while it waited. */
  hasSpoken: boolean;
  /** When what it sent while it waits is looked at again. Milliseconds since the epoch. */
  nextLook: number;
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
  /** Its worker was asked to close it for the sake of another, and has not answered. */
  isAsked: boolean;
  loggedIn: boolean;
  /** Null until a login has shown it. */
  identity: ProvenIdentity | null;
}

/**
 * Milliseconds that it may be a client's turn at each stage before it has to give way. A real one
 * begins as soon as it is connected, and goes on with its handshake after a round trip, but its
 * user may have to type a password.
 */
export const patience: Readonly<Record<LoginStage, number>> = {
  silent: 100,
  handshake: 500,
  login: 5000,
};

/** How many times more connections than another's make somebody a crowd. */
const crowdFactor = 10;

/** How much longer one that is not of a crowd may take when one that is wants its place. */
const leniency = 10;

/** How many connections that have not logged in there are of each origin. */
export type Census = ReadonlyMap<string, number>;

/**
 * A client that is to give way, and the milliseconds for which it must have been its turn at its
 * stage.
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
  const isOfCrowd = countOf(newcomer, census) > crowdFactor * countOf(client, census);
  return isOfCrowd ? leniency * patience[stage] : patience[stage];
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

  /** Those that have been asked to give way and may yet do so. */
  get askedSize(): number {
    let size = 0;
    for (const { isAsked } of this.anonymous) if (isAsked) size++;
    return size;
  }

  /**
   * Who is to give way to a new client at `now`: of those whose turn it has been for too long one
   * of whom most have not logged in, of these the oldest of the earliest stage; null when there is
   * none.
   */
  leastWelcome(newcomer: Client, census: Census, now: number): Candidate | null {
    let least: Candidate | null = null;
    for (const client of this.anonymous) {
      if (client.isAsked || client.silentSince === null) continue;
      const patience = patienceWith(client, newcomer, census);
      if (now - client.silentSince < patience) continue;
      if (least === null || goesFirst(client, least.client, census)) least = { client, patience };
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
    client.worker?.onClientGone();
  }
}
