import type { LocalPeer, Transport } from '../control/messages.js';
import type { WorkerBounds } from '../control/workers.js';

/** A connected client, as an administrator sees it. */
export interface AdminClient {
  /** Never used twice by one server. */
  readonly id: number;
  readonly transport: Transport;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  readonly readOnly: boolean;
  /** Set for UNIX sockets. */
  readonly local: LocalPeer | null;
  /** `address;port`, set for TCP and TLS. */
  readonly remoteAddress: string | null;
  /** Null until it has logged in by SASL. */
  readonly saslUserName: string | null;
  /** Distinguished name of the client's certificate. */
  readonly x509Name: string | null;
}

/** How many clients a server takes. */
export interface ClientBounds {
  readonly maxClients: number;
  /** Clients that have not logged in yet; 0: no limit. */
  readonly maxAnonymousClients: number;
}

/** The same, with how many there are. */
export interface ClientFigures extends ClientBounds {
  readonly clients: number;
  readonly anonymous: number;
}

/** The same, with what the workers do at the moment. */
export interface WorkerFigures extends WorkerBounds {
  /** Those alive, without those that only drain. */
  readonly workers: number;
  /** Those of them without a call under way. */
  readonly freeWorkers: number;
  /** Calls that wait for their turn. */
  readonly queuedCalls: number;
}

/** One of the daemon's servers. What it refuses it answers with an AdminError. */
export interface AdministeredServer {
  readonly name: string;
  /** By ascending ids. */
  clients(): Iterable<AdminClient>;
  client(id: number): AdminClient | null;
  /** Does nothing when there is no such client any more. */
  closeClient(id: number): void;
  clientFigures(): ClientFigures;
  boundClients(bounds: ClientBounds): void;
  workerBounds(): WorkerBounds;
  workerFigures(): Promise<WorkerFigures>;
  /** The number of workers is within the bounds at once. */
  boundWorkers(bounds: WorkerBounds): void;
  /** Resolves when new connections are served with the TLS files as they are now. */
  updateTls(): Promise<void>;
}

/**
 * The daemon, as far as an administrator sees and steers it. What it refuses it answers with an
 * AdminError.
 */
export interface AdminBackend {
  /** `MAJOR.MINOR.PATCH` */
  readonly version: string;
  /** The server of the daemon's ordinary clients. */
  readonly server: AdministeredServer;
  /** As log_outputs of virtproxyd.conf. */
  readonly loggingOutputs: string;
  /** As log_filters of virtproxyd.conf; empty when there are none. */
  readonly loggingFilters: string;
  /** Null or an empty text asks for the default ones. */
  setLoggingOutputs(text: string | null): void;
  /** Null or an empty text asks for none. */
  setLoggingFilters(text: string | null): void;
  /** Seconds without clients after which the daemon ends; 0: never. */
  setIdleTimeout(seconds: number): void;
  /** Begins to end the daemon. */
  shutDown(): void;
}

/**
 * `invalid` an argument is wrong; `unsupported` it can never be done; `failed` it cannot be done
 * now; `system` a file is wrong.
 */
export type AdminFault = 'invalid' | 'unsupported' | 'failed' | 'system';

/** What an administrator asked for cannot be; the message is what they are told. */
export class AdminError extends Error {
  constructor(
    readonly code: AdminFault,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
