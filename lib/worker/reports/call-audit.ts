import type { AuditEntry, AuditStatus } from '../../logging/audit-file.js';
import { procedureOf, programOf, serialOf, type CallHeader } from '../../rpc/frame.js';
import { changesState, procedureName } from '../../rpc/procedures.js';

/** Where a worker's audit entries go. */
export interface AuditTrail {
  /** Whether anybody wants them; may change at any time. */
  readonly on: boolean;
  record(entry: AuditEntry): void;
}

/** Who calls, as audit entries have it. */
export type AuditedClient = Omit<
  AuditEntry,
  'time' | 'procedure' | 'daemon' | 'status' | 'duration_ms'
>;

interface Pending extends CallHeader {
  readonly daemon: string;
  /** Milliseconds since the epoch, and of `performance.now()`. */
  readonly time: number;
  readonly startedAt: number;
}

/**
 * Follows those of one client's calls that change something from their forwarding to their end, and
 * records each then. With auditing off it is asked no more than `isOn` and `isFollowing`.
 */
export class CallAudit {
  private readonly pending: Pending[] = [];
  private known: AuditedClient | null = null;

  constructor(
    private readonly trail: AuditTrail,
    private readonly client: () => AuditedClient,
  ) {}

  get isOn(): boolean {
    return this.trail.on;
  }

  /** Whether there are calls whose end is to be told. */
  get isFollowing(): boolean {
    return this.pending.length > 0;
  }

  /** The call in a frame is being forwarded. */
  began(bytes: Buffer, start: number, daemon: string): void {
    const program = programOf(bytes, start);
    const procedure = procedureOf(bytes, start);
    if (!changesState(program, procedure)) return;
    const serial = serialOf(bytes, start);
    const startedAt = performance.now();
    this.pending.push({ program, procedure, serial, daemon, time: Date.now(), startedAt });
  }

  ended(call: CallHeader, status: AuditStatus): void {
    const index = this.pending.findIndex(
      ({ serial, procedure, program }) =>
        serial === call.serial && procedure === call.procedure && program === call.program,
    );
    const [pending] = index < 0 ? [] : this.pending.splice(index, 1);
    if (pending !== undefined) this.record(pending, pending.daemon, status);
  }

  /** The call in a frame was answered with an error without having reached a daemon. */
  refused(bytes: Buffer, start: number): void {
    const program = programOf(bytes, start);
    const procedure = procedureOf(bytes, start);
    if (!changesState(program, procedure)) return;
    const now = { time: Date.now(), startedAt: performance.now() };
    this.record({ program, procedure, ...now }, undefined, 'error');
  }

  /** The client is gone: nobody sees the replies any more. */
  close(): void {
    for (const pending of this.pending.splice(0)) this.record(pending, pending.daemon, 'lost');
  }

  private record(
    { program, procedure, time, startedAt }: Omit<Pending, 'serial' | 'daemon'>,
    daemon: string | undefined,
    status: AuditStatus,
  ): void {
    this.known ??= this.client();
    this.trail.record({
      time: new Date(time).toISOString(),
      ...this.known,
      procedure: procedureName(program, procedure),
      ...(daemon === undefined ? {} : { daemon }),
      status,
      duration_ms: Math.round((performance.now() - startedAt) * 1000) / 1000,
    });
  }
}
