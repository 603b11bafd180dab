import { procedureOf, programOf, serialOf } from '../../rpc/frame.js';
import { procedureAt } from '../../rpc/procedures.js';
import type { DaemonMeter } from '../reports/call-meter.js';
import { CallTable, type TakenCall } from './call-table.js';
import type { Loss } from './link-owner.js';
import { Registrations } from './registrations.js';

/** How often a call is sent again at most: it may be what daemons die of. */
const maxRepeats = 3;

/**
 * What a client has under way with one daemon: calls without an answer, and the streams and
 * registrations that came of others.
 */
export class LinkCalls {
  readonly calls = new CallTable();
  readonly streams = new CallTable();
  readonly registrations = new Registrations();

  constructor(
    /** The daemon is waited for once it is gone, so copies are kept of calls that only ask. */
    private readonly isWaitedFor: boolean,
    /** Null when nobody wants to know. */
    private readonly meter: DaemonMeter | null,
  ) {}

  /**
   * A call is about to be forwarded; `end` is null for a large one, whose frame is not here. Gives
   * whether its reply may have descriptors.
   */
  add(bytes: Buffer, start: number, end: number | null): boolean {
    return this.remember(bytes, start, end, this.meter === null ? 0 : this.meter.now, 0);
  }

  /** The same of one that is sent again: a copy that was kept of it, and what is known of it. */
  addAgain(frame: Buffer, { time, repeats }: TakenCall): boolean {
    return this.remember(frame, 0, frame.length, time, repeats + 1);
  }

  onReply(bytes: Buffer, start: number, length: number, succeeded: boolean): void {
    const program = programOf(bytes, start);
    const number = procedureOf(bytes, start);
    const serial = serialOf(bytes, start);
    const startedAt = this.calls.take(program, number, serial);
    this.meter?.answered(program, number, startedAt, succeeded);
    const row = procedureAt(program, number);
    if (row === undefined) return;
    if (!succeeded && row.opensStream) this.streams.take(program, number, serial);
    if (row.registration !== null && this.isWaitedFor) {
      this.registrations.onReply(row, bytes, start, length, succeeded);
    }
  }

  onStreamEnd(bytes: Buffer, start: number): void {
    this.streams.take(programOf(bytes, start), procedureOf(bytes, start), serialOf(bytes, start));
  }

  /** All that the client has can be had anew from a daemon that comes back. */
  get areRestartable(): boolean {
    return this.isWaitedFor && !this.registrations.areIncomplete;
  }

  /**
   * The daemon is gone: sorts the calls into those that can be sent again, if any may be, and those
   * that end with an error.
   */
  takeLost(reason: string, isRestartable: boolean): { loss: Loss; kept: readonly TakenCall[] } {
    const calls = this.calls.takeAll();
    const kept = isRestartable ? calls.filter(({ frame }) => frame !== null) : [];
    const lost = isRestartable ? calls.filter(({ frame }) => frame === null) : calls;
    this.meter?.lost(lost);
    // A stream whose call has no reply yet ends with that call.
    for (const { program, procedure, serial } of lost) {
      this.streams.take(program, procedure, serial);
    }
    this.registrations.onLost();
    return { loss: { reason, calls: lost, streams: this.streams.takeAll() }, kept };
  }

  private remember(
    bytes: Buffer,
    start: number,
    end: number | null,
    time: number,
    repeats: number,
  ): boolean {
    const program = programOf(bytes, start);
    const number = procedureOf(bytes, start);
    const serial = serialOf(bytes, start);
    this.calls.add(program, number, serial, time);
    const row = procedureAt(program, number);
    // A procedure of a newer libvirt may be one with descriptors too.
    if (row === undefined) return true;
    // Now, not at the reply: a daemon may send a stream's first and even its last frame before
    // that.
    if (row.opensStream) this.streams.add(program, number, serial, 0);
    const mayHaveDescriptors = row.descriptors !== null;
    if (end === null || !this.isWaitedFor) return mayHaveDescriptors;
    if (!row.changesState && !row.opensStream && !mayHaveDescriptors) {
      if (repeats < maxRepeats) this.calls.keep(bytes, start, end, repeats);
    }
    if (row.registration !== null) this.registrations.onCall(row, bytes, start, end);
    return mayHaveDescriptors;
  }
}
