/** Whoever writes into a batch. */
export interface BatchWriter {
  /** Writes the bytes from `start` to `end`, which change after the call. */
  writeNow(bytes: Buffer, start: number, end: number): void;
}

/** The longest piece that waits, in bytes: copying a longer one costs more than a system call. */
const longestPiece = 4096;

/** Pieces a turn from which on they wait for each other. */
const fewestPieces = 5;

/** Bytes that wait at most; more go out before the turn ends. */
const capacity = 64 * 1024;

/**
 * What is written in one turn of the event loop, by many writers, leaves at its end. Frames that
 * have arrived together are all read before the first is passed on, so that a daemon is woken by
 * the first of them and finds the others there, instead of being woken by each.
 */
export class WriteBatch {
  private readonly bytes = Buffer.allocUnsafeSlow(capacity);
  private length = 0;
  /** Whose the pieces are, in the order in which they lie in `bytes`, and where each ends. */
  private writers: BatchWriter[] = [];
  private ends: number[] = [];
  /** What was given in this turn, and in the one before. */
  private pieces = 0;
  private piecesBefore = 0;
  private readonly onTurnEnd = (): void => {
    this.piecesBefore = this.pieces;
    this.pieces = 0;
    this.flush();
  };

  /**
   * Keeps a copy until the turn ends; false when it had better be written at once: it is too long,
   * or the turn before had too few pieces for one to gain by waiting.
   */
  add(writer: BatchWriter, bytes: Buffer, start: number, end: number): boolean {
    if (this.pieces === 0) setImmediate(this.onTurnEnd);
    this.pieces++;
    const size = end - start;
    if (size > longestPiece || this.piecesBefore < fewestPieces) return false;
    if (this.length + size > capacity) this.flush();
    bytes.copy(this.bytes, this.length, start, end);
    this.length += size;
    const last = this.ends.length - 1;
    if (this.writers[last] === writer) {
      this.ends[last] = this.length;
    } else {
      this.writers.push(writer);
      this.ends.push(this.length);
    }
    return true;
  }

  /** Writes what waits now, so that something can follow it that does not wait. */
  flush(): void {
    const { writers, ends } = this;
    let start = 0;
    for (let index = 0; index < ends.length; index++) {
      const end = ends[index] ?? start;
      writers[index]?.writeNow(this.bytes, start, end);
      start = end;
    }
    writers.length = 0;
    ends.length = 0;
    this.length = 0;
  }
}
