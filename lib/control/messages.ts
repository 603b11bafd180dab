import type { Configuration } from '../config/configuration.js';
import type { TlsContents } from '../config/paths.js';
import type { AuditEntry } from '../logging/audit-file.js';
import type { WorkerLogging } from '../logging/log-control.js';
import type { LogRecord } from '../logging/logger.js';
import { transportTraits, type Transport } from './transports.js';
import type { WorkerReport } from './worker-report.js';
import type { WorkerUser } from './workers.js';

/** All that primary and workers say to each other, as JSON values. */

export { transports, type Transport } from './transports.js';

export type AuthMethod = 'none' | 'sasl' | 'polkit';

/** Who is at the other end of a UNIX socket, as the kernel knew at the time of accepting. */
export interface LocalPeer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  /**
   * Field 22 of /proc/PID/stat, clock ticks since boot, in decimal; null when the process is gone.
   */
  readonly startTime: string | null;
  readonly selinuxContext: string | null;
}

/** What a worker must know about a connection, whose socket comes over the clients' passage. */
export interface ClientIntroduction {
  readonly kind: 'client';
  /** Unique for the life of the primary. */
  readonly id: number;
  readonly transport: Transport;
  /** It came by the read-only socket. */
  readonly readOnly: boolean;
  readonly auth: AuthMethod;
  /** Set for UNIX sockets. */
  readonly local: LocalPeer | null;
  /** `address;port` of the far end, as libsasl2 wants it, set for TCP and TLS. */
  readonly remoteAddress: string | null;
  /** `address;port` of our end, set for TCP and TLS. */
  readonly localAddress: string | null;
}

/**
 * Whether the client is anonymous until its worker says that it has logged in: a certificate or a
 * login has to come first.
 */
export function beginsAnonymous({ transport, auth }: ClientIntroduction): boolean {
  return transportTraits[transport].beginsAnonymous || auth !== 'none';
}

/** What a worker is given to work with. */
export interface WorkerSetup {
  readonly configuration: Configuration;
  readonly logging: WorkerLogging;
  /** Whom it must run as; null for the user of the primary. */
  readonly user: WorkerUser | null;
  /** Null without TLS. */
  readonly tls: TlsContents | null;
}

/** Over the control channel, primary to worker. */
export type PrimaryMessage =
  | ({ readonly kind: 'configure' } & WorkerSetup)
  /** Close clients after at most `seconds` for replies to calls already forwarded, then end. */
  | { readonly kind: 'stop'; readonly seconds: number }
  /** A client, whose socket comes over the clients' passage with its id, before or after this. */
  | ClientIntroduction
  /**
   * Serve the clients there are until they leave, `seconds` at most (0: no limit), then end.
   * `clients` were handed over so far: some of them may still be on their way.
   */
  | { readonly kind: 'drain'; readonly seconds: number; readonly clients: number }
  | { readonly kind: 'closeClient'; readonly id: number; readonly reason: string }
  /**
   * Close a client that has not logged in, if it has been its turn at that stage for as many
   * milliseconds as `patience` says. Answered by `closed`, or by `standing` when it stays; not at
   * all when it has logged in.
   */
  | {
      readonly kind: 'evict';
      readonly id: number;
      readonly stage: LoginStage;
      readonly patience: number;
      readonly reason: string;
    }
  /** A daemon's socket cannot be had for the system's reason, such as ENOENT: see `connect`. */
  | { readonly kind: 'unconnected'; readonly number: number; readonly code: string }
  /** Whether a daemon's socket is there: see `look`. */
  | { readonly kind: 'seen'; readonly number: number; readonly exists: boolean }
  /** What polkit says of a client: null is a yes, else why it is refused, for the log. */
  | { readonly kind: 'polkit'; readonly id: number; readonly refusal: string | null }
  | ({ readonly kind: 'logging' } & WorkerLogging)
  /** Take these TLS files for connections to come. */
  | { readonly kind: 'tls'; readonly tls: TlsContents }
  /**
   * Answered by `load`, after all that was said before has been done, and with metrics on after a
   * `report`.
   */
  | { readonly kind: 'load' }
  /** Answered by `alive` as soon as the worker's event loop turns. */
  | { readonly kind: 'heartbeat' };

/** Over the control channel, worker to primary. */
export type WorkerMessage =
  | { readonly kind: 'ready' }
  /** With the share of the time since the last heartbeat in which it was busy, 0 to 1. */
  | { readonly kind: 'alive'; readonly utilisation: number }
  | ({ readonly kind: 'load' } & WorkerLoad)
  | ({ readonly kind: 'report' } & WorkerReport)
  | { readonly kind: 'log'; readonly record: LogRecord }
  | { readonly kind: 'audit'; readonly entries: readonly AuditEntry[] }
  /** Whether too few descriptors are left for further clients. */
  | { readonly kind: 'descriptors'; readonly areScarce: boolean }
  /**
   * SASL logins have used up so much that a successor should take its place; `state` is for the
   * log.
   */
  | { readonly kind: 'worn'; readonly state: string }
  | ({ readonly kind: 'connect'; readonly client: number } & DaemonQuestion)
  | ({ readonly kind: 'look' } & DaemonQuestion)
  /** Asks polkit whether a client may use its socket. Answered by `polkit`, unless it leaves. */
  | { readonly kind: 'askPolkit'; readonly id: number }
  | ClientMessage;

/**
 * A worker that cannot reach daemons' sockets itself has the primary connect to one for a client,
 * or look whether there is one. The primary alone decides where a driver's socket is. `connect` is
 * answered by a descriptor with that number, which is passed beside the control channel, or by
 * `unconnected`, `look` by `seen`; a question that no worker has to ask, by nothing.
 */
export interface DaemonQuestion {
  /** Of 32 bits, which no other question has that is not answered yet. */
  readonly number: number;
  readonly driver: string;
  readonly readOnly: boolean;
}

/** The calls that a worker's clients have made and that are not answered yet. */
export interface WorkerLoad {
  /** With a daemon. */
  readonly underWay: number;
  /** Waiting for their turn. */
  readonly held: number;
}

/** What a login has shown of a client, and what it may do. */
export interface ProvenIdentity {
  readonly saslUserName: string | null;
  /** Distinguished name of the client's certificate. */
  readonly x509Name: string | null;
  readonly readOnly: boolean;
}

/**
 * How far a client has come that has not logged in: nowhere, begun a TLS handshake, finished it or
 * sent a frame.
 */
export const loginStages = ['silent', 'handshake', 'login'] as const;
export type LoginStage = (typeof loginStages)[number];

/**
 * Why a client was not let in: no place in the queue, evicted (`gave_way`), its login or its
 * TLS handshake failed, or it took too long.
 */
export const refusalReasons = ['queue_full', 'gave_way', 'login', 'tls', 'login_timeout'] as const;
export type RefusalReason = (typeof refusalReasons)[number];

/** What a worker says of one client. */
export type ClientMessage =
  /** The socket has arrived: the primary may close its copy. */
  | { readonly kind: 'taken'; readonly id: number }
  /**
   * How far it has come, and for how many milliseconds it has been its turn: told as it goes on,
   * and to `evict`.
   */
  | {
      readonly kind: 'standing';
      readonly id: number;
      readonly stage: LoginStage;
      readonly silentFor: number;
    }
  /** One that began anonymous has logged in, or one that did not turns out to be read-only. */
  | ({ readonly kind: 'loggedIn'; readonly id: number } & ProvenIdentity)
  | { readonly kind: 'closed'; readonly id: number; readonly refusal?: RefusalReason };
