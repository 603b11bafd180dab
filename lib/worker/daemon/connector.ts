import { closeSync } from 'node:fs';
import { isThere } from '../../config/daemon-places.js';
import type { DaemonQuestion, PrimaryMessage, WorkerMessage } from '../../control/messages.js';
import { isScarce } from '../../native/descriptors.js';
import { hasHungUp } from '../../native/hang-up.js';
import { receiveNumbered } from '../../transport/numbered-descriptors.js';
import { socketError } from '../../transport/node-socket.js';
import { SocketStream } from '../../transport/socket-stream.js';
import type { Attempt } from './connection.js';
import type { Endpoint } from './directory.js';

/** How a worker gets at daemons' sockets. */
export interface Connector {
  /** Connects for a client. Rejects with the system's error, or the reason it is given up for. */
  connect(client: number, endpoint: Endpoint, attempt: Attempt): Promise<SocketStream>;
  /** Whether a daemon's socket is there. */
  exists(endpoint: Endpoint): Promise<boolean>;
}

/** By the rights of this process. */
export const ownConnector: Connector = {
  connect: (_, { path }) => new Promise((resolve) => resolve(SocketStream.connect(path))),
  exists: ({ path }) => isThere(path),
};

/** The primary's answers. */
type Answer = Extract<PrimaryMessage, { readonly kind: 'unconnected' | 'seen' }>;

interface Waiting {
  readonly connected: (descriptor: number) => void;
  readonly failed: (code: string) => void;
}

/** A connection that was asked for before its client has. */
interface Ahead {
  readonly driver: string;
  readonly readOnly: boolean;
  readonly giveUp: AbortController;
  /** Null when it cannot be had. */
  readonly descriptor: Promise<number | null>;
}

/** Descriptors that no daemon's connection may use. */
export const reservedForArrivals = 16;

/** Milliseconds for which a connection is kept that its client has not asked for. */
const aheadPatience = 2000;

/**
 * By the primary's, which connects and passes the connected socket. The way to the primary and back
 * costs more than all the rest, so that it is asked as soon as a client is there, for the daemon
 * that the one before has used.
 */
export class PrimaryConnector implements Connector {
  private readonly connecting = new Map<number, Waiting>();
  private readonly looking = new Map<number, (exists: boolean) => void>();
  private readonly ahead = new Map<number, Ahead>();
  private lastDriver: string | null = null;
  private lastNumber = 0;

  constructor(
    private readonly ask: (question: WorkerMessage) => void,
    /** Where connected sockets arrive. */
    passage: SocketStream,
    /** Whether there can be a daemon of a driver: of others the primary knows nothing. */
    private readonly isConfigured: (driver: string) => boolean,
  ) {
    receiveNumbered(passage, {
      arrived: (number, descriptor) => {
        const waiting = this.connecting.get(number);
        // Whoever has given up waits no more.
        if (waiting === undefined) closeSync(descriptor);
        else waiting.connected(descriptor);
      },
      lost: (number) => this.connecting.get(number)?.failed('EMFILE'),
    });
  }

  async connect(client: number, endpoint: Endpoint, { signal }: Attempt): Promise<SocketStream> {
    signal.throwIfAborted();
    if (!this.isConfigured(endpoint.driver)) throw socketError('connect', 'ENOENT', endpoint.path);
    this.lastDriver = endpoint.driver;
    const ahead = this.ahead.get(client);
    const early = ahead && (await this.takeAhead(ahead, client, endpoint, signal));
    return SocketStream.opened(early ?? (await this.descriptorFor(client, endpoint, signal)));
  }

  /** A client is there that may use what it asks for first, by a socket of that kind. */
  connectAhead(client: number, readOnly: boolean, endpointOf: (driver: string) => Endpoint): void {
    const driver = this.lastDriver;
    if (driver === null) return;
    const giveUp = new AbortController();
    const descriptor = this.descriptorFor(client, endpointOf(driver), giveUp.signal).then(
      (descriptor) => (isScarce(descriptor, reservedForArrivals) ? closed(descriptor) : descriptor),
      () => null,
    );
    this.ahead.set(client, { driver, readOnly, giveUp, descriptor });
    setTimeout(() => this.forget(client), aheadPatience).unref();
  }

  /** A client has left, or will not use what was connected ahead. */
  forget(client: number): void {
    const ahead = this.ahead.get(client);
    if (ahead === undefined) return;
    this.ahead.delete(client);
    ahead.giveUp.abort(new Error('not wanted'));
    void ahead.descriptor.then(closed);
  }

  exists(endpoint: Endpoint): Promise<boolean> {
    const question = this.questionOn(endpoint);
    return new Promise((resolve) => {
      this.looking.set(question.number, resolve);
      this.ask({ kind: 'look', ...question });
    });
  }

  /** The primary has answered otherwise than by a socket. */
  onAnswer(answer: Answer): void {
    const { number } = answer;
    if (answer.kind === 'unconnected') {
      this.connecting.get(number)?.failed(answer.code);
      return;
    }
    this.looking.get(number)?.(answer.exists);
    this.looking.delete(number);
  }

  /**
   * What was connected ahead, if it is what the client wants and the daemon is still there. Rejects
   * with the signal's reason.
   */
  private async takeAhead(
    ahead: Ahead,
    client: number,
    { driver, readOnly }: Endpoint,
    signal: AbortSignal,
  ): Promise<number | null> {
    if (ahead.driver !== driver || ahead.readOnly !== readOnly) {
      this.forget(client);
      return null;
    }
    this.ahead.delete(client);
    const aborted = (): void => ahead.giveUp.abort(signal.reason);
    signal.addEventListener('abort', aborted);
    const descriptor = await ahead.descriptor;
    signal.removeEventListener('abort', aborted);
    const isWanted = descriptor !== null && !signal.aborted && !hasHungUp(descriptor);
    if (!isWanted) closed(descriptor);
    signal.throwIfAborted();
    return isWanted ? descriptor : null;
  }

  private descriptorFor(client: number, endpoint: Endpoint, signal: AbortSignal): Promise<number> {
    const question = this.questionOn(endpoint);
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.connecting.delete(question.number);
        signal.removeEventListener('abort', aborted);
      };
      const fail = (error: Error): void => {
        settle();
        reject(error);
      };
      const aborted = (): void => fail(signal.reason as Error);
      signal.addEventListener('abort', aborted);
      this.connecting.set(question.number, {
        connected: (descriptor) => {
          settle();
          resolve(descriptor);
        },
        failed: (code) => fail(socketError('connect', code, endpoint.path)),
      });
      this.ask({ kind: 'connect', client, ...question });
    });
  }

  private questionOn({ driver, readOnly }: Endpoint): DaemonQuestion {
    this.lastNumber = (this.lastNumber + 1) >>> 0;
    return { number: this.lastNumber, driver, readOnly };
  }
}

/** Closes a descriptor that is not used, if there is one; then there is none. */
function closed(descriptor: number | null): null {
  if (descriptor !== null) closeSync(descriptor);
  return null;
}
