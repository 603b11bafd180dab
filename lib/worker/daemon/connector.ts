import { closeSync } from 'node:fs';
import { access } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import type { DaemonQuestion, PrimaryMessage, WorkerMessage } from '../../control/messages.js';
import { receiveNumbered } from '../../transport/numbered-descriptors.js';
import { SocketStream } from '../../transport/socket-stream.js';
import type { Endpoint } from './directory.js';

/** How a worker gets at daemons' sockets. */
export interface Connector {
  /** Connects for a client. Rejects with the system's error, or the signal's reason. */
  connect(client: number, endpoint: Endpoint, signal: AbortSignal): Promise<SocketStream>;
  /** Whether a daemon's socket is there. */
  exists(endpoint: Endpoint): Promise<boolean>;
}

/** By the rights of this process. */
export const ownConnector: Connector = {
  connect: (_, { path }, signal) => SocketStream.connect(path, signal),
  exists: ({ path }) =>
    access(path).then(
      () => true,
      () => false,
    ),
};

/** The primary's answers. */
type Answer = Extract<PrimaryMessage, { readonly kind: 'unconnected' | 'seen' }>;

interface Waiting {
  readonly connected: (descriptor: number) => void;
  readonly failed: (code: string) => void;
}

/** By the primary's, which connects and passes the connected socket. */
export class PrimaryConnector implements Connector {
  private readonly connecting = new Map<number, Waiting>();
  private readonly looking = new Map<number, (exists: boolean) => void>();
  private lastNumber = 0;

  constructor(
    private readonly ask: (question: WorkerMessage) => void,
    /** Where connected sockets arrive. */
    passage: Socket,
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

  async connect(client: number, endpoint: Endpoint, signal: AbortSignal): Promise<SocketStream> {
    signal.throwIfAborted();
    if (!this.isConfigured(endpoint.driver)) throw connectError('ENOENT', endpoint);
    return SocketStream.opened(await this.descriptorFor(client, endpoint, signal));
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
        failed: (code) => fail(connectError(code, endpoint)),
      });
      this.ask({ kind: 'connect', client, ...question });
    });
  }

  private questionOn({ driver, readOnly }: Endpoint): DaemonQuestion {
    this.lastNumber = (this.lastNumber + 1) >>> 0;
    return { number: this.lastNumber, driver, readOnly };
  }
}

/** The error of connect(2) as node has it. */
function connectError(code: string, { path }: Endpoint): NodeJS.ErrnoException {
  const errno = (constants.errno as Readonly<Record<string, number>>)[code] ?? 0;
  const error = new Error(`connect ${code} ${path}`);
  return Object.assign(error, { code, errno: -errno, syscall: 'connect' });
}
