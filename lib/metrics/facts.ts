import type { CertificateExpiry } from '../control/certificates.js';
import type { RefusalReason, Transport } from '../control/messages.js';
import type { RestartReason } from '../control/workers.js';
import type { WorkerGauges } from './worker-gauges.js';
import type { WorkerTotals } from './worker-totals.js';

/** What becomes of a connection: it waits for a worker or a place, it has to log in, it is in. */
export const clientStates = ['waiting', 'login', 'serving'] as const;
export type ClientState = (typeof clientStates)[number];

/** Clients of one transport by state, and of those `serving` how many may only look. */
export type ClientCounts = Readonly<Record<ClientState | 'readOnly', number>>;

export const reloadResults = ['success', 'failure'] as const;
export type ReloadResult = (typeof reloadResults)[number];

/** States of workers that have something to do with clients. */
export type ServingState = 'starting' | 'ready' | 'draining';

export interface WorkerFacts {
  /** From 0 on; a worker's successor may have its slot, two at a time never. */
  readonly slot: number;
  readonly pid: number;
  readonly generation: number;
  readonly state: ServingState;
  readonly clients: number;
  /** Null until its first report. */
  readonly gauges: WorkerGauges | null;
}

/** Milliseconds since the epoch. */
type Instant = number;

export interface LastReload {
  readonly at: Instant;
  readonly result: ReloadResult;
}

/** The daemon as it is now; counts are from its start on. */
export interface Facts {
  readonly version: string;
  readonly startedAt: Instant;
  readonly primary: {
    readonly pid: number;
    readonly cpuSeconds: number;
    /** Bytes. */
    readonly residentMemory: number;
  };
  /** New clients are let in: it has started, and neither stops nor has given way to a successor. */
  readonly isServing: boolean;
  readonly generation: number;
  /** Older ones that still have clients. */
  readonly drainingGenerations: number;
  /** How many workers there should be. */
  readonly wantedWorkers: number;
  readonly workers: readonly WorkerFacts[];
  readonly clients: Readonly<Record<Transport, ClientCounts>>;
  readonly maxClients: number;
  readonly accepted: Readonly<Record<Transport, number>>;
  readonly refused: Readonly<Record<RefusalReason, number>>;
  readonly restarts: Readonly<Record<RestartReason, number>>;
  readonly reloads: Readonly<Record<ReloadResult, number>>;
  readonly lastReload: LastReload | null;
  /** Null without TLS. */
  readonly certificates: CertificateExpiry | null;
  /** Lines of log and audit file that could not be written. */
  readonly droppedLines: number;
  readonly totals: WorkerTotals;
}

/** A driver's daemon, and whether its socket is there. */
export interface DaemonSocket {
  readonly daemon: string;
  readonly path: string;
  readonly isThere: boolean;
  /** `[routes]` names it: it should be there. */
  readonly isRouted: boolean;
  readonly isHypervisor: boolean;
}

/** Where the facts come from. */
export interface FactSource {
  facts(): Facts;
  /**
   * Has the workers report. Resolves when they have, or when one has been waited for long enough.
   */
  refresh(): Promise<void>;
  /** Looks which of the daemons' sockets are there. */
  daemonSockets(): Promise<readonly DaemonSocket[]>;
}
