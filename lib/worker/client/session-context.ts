import type { ProvenClient, Rights } from '../../auth/rights.js';
import type { Configuration } from '../../config/configuration.js';
import type { ClientIntroduction, ProvenIdentity, RefusalReason } from '../../control/messages.js';
import type { Logger } from '../../logging/logger.js';
import type { ByteStream } from '../../transport/byte-stream.js';
import type { AuditTrail } from '../reports/call-audit.js';
import type { SessionFigures } from '../reports/reporter.js';
import type { CallMeter } from '../reports/call-meter.js';
import type { ConnectionTarget } from '../daemon/connection-uri.js';
import type { Attempt } from '../daemon/connection.js';
import type { DaemonDirectory, Endpoint } from '../daemon/directory.js';
import type { DaemonRestarts } from '../daemon/restarts.js';
import type { LoginSettings } from './login.js';

/** What all sessions of a worker share. */
export interface SessionContext {
  readonly configuration: Configuration;
  readonly daemons: DaemonDirectory;
  /** As `Connect`, for the client of that number. */
  readonly connect: (client: number, endpoint: Endpoint, attempt: Attempt) => Promise<ByteStream>;
  readonly restarts: DaemonRestarts;
  /** What to open for an empty URI, or null when no daemon is there. */
  readonly probe: (readOnly: boolean) => Promise<ConnectionTarget | null>;
  readonly login: (introduction: ClientIntroduction, externalSsf: number) => LoginSettings;
  /** What a client may do that has logged in. */
  readonly rights: (client: ProvenClient) => Rights;
  readonly log: Logger;
  readonly audit: AuditTrail;
  /** Null with metrics off. */
  readonly meter: CallMeter | null;
  /** A client that has not logged in sent a frame, or was answered: it is its turn to go on. */
  readonly clientsTurn: (id: number) => void;
  /** Told of those that began anonymous, or are read-only though their socket is not. */
  readonly loggedIn: (id: number, identity: ProvenIdentity) => void;
  /** `refusal`: why it was closed before it was in; null for all other reasons. */
  readonly closed: (session: SessionFigures, refusal: RefusalReason | null) => void;
}

/** What was learned of the client before its first frame. */
export interface Arrival {
  readonly introduction: ClientIntroduction;
  readonly stream: ByteStream;
  /** Milliseconds of `performance.now()` when the worker was handed it. */
  readonly arrivedAt: number;
  /** Distinguished name of the client's certificate. */
  readonly x509Name: string | null;
  /** Strength of the TLS session in bits, 0 without TLS. */
  readonly externalSsf: number;
}
