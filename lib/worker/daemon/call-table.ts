import type { CallHeader } from '../../rpc/frame.js';

/** Fields of a call in the table. */
const width = 7;

/** Where in a call's fields stands what. */
const at = {
  serial: 0,
  procedure: 1,
  program: 2,
  time: 3,
  position: 4,
  length: 5,
  repeats: 6,
} as const;

/** What `take` gives when there is no such call. */
export const absent = -1;

/** Bytes of memory for frames: to begin with, and at most. */
const leastKept = 1024;
const mostKept = 64 * 1024;

const nothing = Buffer.alloc(0);

/** A call that was taken out of the table. */
export interface TakenCall extends CallHeader {
  readonly time: number;
  /** A copy of its frame, where that was kept. */
  readonly frame: Buffer | null;
  /** How often it had been sent again already. */
  readonly repeats: number;
}

/**
 * The calls forwarded to one daemon and not yet answered. There are few at a time
 * (max_client_requests), so they lie side by side in one array of numbers and are searched from the
 * front. Frames that may have to be sent again lie one behind the other in memory of the table's
 * own, which begins anew whenever all calls are answered.
 */
export class CallTable {
  private readonly fields: number[] = [];
  private kept = nothing;
  private keptEnd = 0;

  get size(): number {
    return this.fields.length / width;
  }

  /** `time`, from 0 on, is what `take` is to give. */
  add(program: number, procedure: number, serial: number, time: number): void {
    if (this.fields.length === 0) this.keptEnd = 0;
    this.fields.push(serial, procedure, program, time, 0, 0, 0);
  }

  /**
   * Keeps a copy of the frame of the call that was added last, which was sent again that often;
   * false when there is no room among those of others.
   */
  keep(bytes: Buffer, start: number, end: number, repeats = 0): boolean {
    const length = end - start;
    if (this.keptEnd + length > this.kept.length && !this.makeRoom(length)) return false;
    bytes.copy(this.kept, this.keptEnd, start, end);
    const call = this.fields.length - width;
    this.fields[call + at.position] = this.keptEnd;
    this.fields[call + at.length] = length;
    this.fields[call + at.repeats] = repeats;
    this.keptEnd += length;
    return true;
  }

  has(program: number, procedure: number, serial: number): boolean {
    return this.find(program, procedure, serial) >= 0;
  }

  /** Removes the call that an answer belongs to and gives its time; `absent` when there is none. */
  take(program: number, procedure: number, serial: number): number {
    const call = this.find(program, procedure, serial);
    if (call < 0) return absent;
    const time = this.fields[call + at.time] ?? absent;
    this.remove(call);
    return time;
  }

  /** Empties the table; the calls in the order in which they were added. */
  takeAll(): TakenCall[] {
    const calls: TakenCall[] = [];
    const { fields, kept } = this;
    for (let call = 0; call < fields.length; call += width) {
      const [
        serial = 0,
        procedure = 0,
        program = 0,
        time = 0,
        position = 0,
        length = 0,
        repeats = 0,
      ] = fields.slice(call, call + width);
      const frame = length === 0 ? null : Buffer.from(kept.subarray(position, position + length));
      calls.push({ program, procedure, serial, time, frame, repeats });
    }
    fields.length = 0;
    return calls;
  }

  private find(program: number, procedure: number, serial: number): number {
    const { fields } = this;
    for (let call = 0; call < fields.length; call += width) {
      if (
        fields[call] === serial &&
        fields[call + at.procedure] === procedure &&
        fields[call + at.program] === program
      ) {
        return call;
      }
    }
    return -1;
  }

  /** By hand: for so few numbers copyWithin and a new length take several times as long. */
  private remove(start: number): void {
    const { fields } = this;
    for (let field = start + width; field < fields.length; field++) {
      fields[field - width] = fields[field] ?? 0;
    }
    for (let each = 0; each < width; each++) fields.pop();
  }

  /** Moves what is kept to the front, into more memory where that is not enough. */
  private makeRoom(length: number): boolean {
    const { fields, kept } = this;
    let wanted = length;
    for (let call = 0; call < fields.length; call += width) wanted += fields[call + at.length] ?? 0;
    if (wanted > mostKept) return false;
    let size = Math.max(kept.length, leastKept);
    while (size < wanted) size *= 2;
    const target = size === kept.length ? kept : Buffer.allocUnsafeSlow(size);
    let end = 0;
    for (let call = 0; call < fields.length; call += width) {
      const position = fields[call + at.position] ?? 0;
      const long = fields[call + at.length] ?? 0;
      kept.copy(target, end, position, position + long);
      fields[call + at.position] = end;
      end += long;
    }
    this.kept = target;
    this.keptEnd = end;
    return true;
  }
}
