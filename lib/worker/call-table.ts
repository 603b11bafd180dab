/** A call on its way: what an answer to it must carry. */
export interface PendingCall {
  readonly program: number;
  readonly procedure: number;
  readonly serial: number;
}

/**
 * The calls forwarded to one daemon and not yet answered. There are few at a time (max_client_requests), so they lie
 * side by side in one array of numbers and are searched from the front.
 */
export class CallTable {
  /** Serial, procedure and program of each call in turn. */
  private readonly fields: number[] = [];

  get size(): number {
    return this.fields.length / 3;
  }

  add(program: number, procedure: number, serial: number): void {
    this.fields.push(serial, procedure, program);
  }

  has(program: number, procedure: number, serial: number): boolean {
    return this.find(program, procedure, serial) >= 0;
  }

  /** Removes the call that an answer belongs to; false when there is none. */
  take(program: number, procedure: number, serial: number): boolean {
    const at = this.find(program, procedure, serial);
    if (at < 0) return false;
    this.fields.copyWithin(at, at + 3);
    this.fields.length -= 3;
    return true;
  }

  /** Empties the table; the calls in the order in which they were added. */
  takeAll(): PendingCall[] {
    const calls: PendingCall[] = [];
    const { fields } = this;
    for (let at = 0; at < fields.length; at += 3) {
      const [serial = 0, procedure = 0, program = 0] = fields.slice(at, at + 3);
      calls.push({ program, procedure, serial });
    }
    fields.length = 0;
    return calls;
  }

  private find(program: number, procedure: number, serial: number): number {
    const { fields } = this;
    for (let at = 0; at < fields.length; at += 3) {
      if (fields[at] === serial && fields[at + 1] === procedure && fields[at + 2] === program) {
        return at;
      }
    }
    return -1;
  }
}
