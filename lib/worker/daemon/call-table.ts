import type { CallHeader } from '../../rpc/frame.js';

/** Fields of a call in the table. */
const width = 4;

/** What `take` gives when there is no such call. */
export const absent = -1;

/**
 * The calls forwarded to one daemon and not yet answered. There are few at a time (max_client_requests), so they lie
 * side by side in one array of numbers and are searched from the front.
 */
export class CallTable {
  /** Serial, procedure, program and time of each call in turn. */
  private readonly fields: number[] = [];

  /** `time`, from 0 on, is what `take` is to give. */
  add(program: number, procedure: number, serial: number, time: number): void {
    this.fields.push(serial, procedure, program, time);
  }

  has(program: number, procedure: number, serial: number): boolean {
    return this.find(program, procedure, serial) >= 0;
  }

  /** Removes the call that an answer belongs to and gives its time; `absent` when there is none. */
  take(program: number, procedure: number, serial: number): number {
    const at = this.find(program, procedure, serial);
    if (at < 0) return absent;
    const time = this.fields[at + 3] ?? absent;
    this.remove(at);
    return time;
  }

  /** Empties the table; the calls in the order in which they were added. */
  takeAll(): CallHeader[] {
    const calls: CallHeader[] = [];
    const { fields } = this;
    for (let at = 0; at < fields.length; at += width) {
      const [serial = 0, procedure = 0, program = 0] = fields.slice(at, at + width);
      calls.push({ program, procedure, serial });
    }
    fields.length = 0;
    return calls;
  }

  private find(program: number, procedure: number, serial: number): number {
    const { fields } = this;
    for (let at = 0; at < fields.length; at += width) {
      if (fields[at] === serial && fields[at + 1] === procedure && fields[at + 2] === program) {
        return at;
      }
    }
    return -1;
  }

  /** By hand: for so few numbers copyWithin and a new length take several times as long. */
  private remove(start: number): void {
    const { fields } = this;
    for (let at = start + width; at < fields.length; at++) fields[at - width] = fields[at] ?? 0;
    for (let each = 0; each < width; each++) fields.pop();
  }
}
