/** The bytes do not hold what the protocol says they should. */
export class XdrError extends Error {
  readonly code = 'XDR';
  constructor(
    readonly field: string,
    readonly offset: number,
    what: string,
  ) {
    super(`${field} at byte ${offset}: ${what}`);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads XDR values one after the other. Every read checks what is left and throws XdrError with
 * field and offset. Lenient where libvirt's decoder is: any non-zero optional marker is true;
 * padding must be there, but what is in it is not looked at.
 */
export class XdrReader {
  constructor(
    private readonly bytes: Buffer,
    private at = 0,
    private readonly end = bytes.length,
  ) {}

  /** Where the next read starts in the bytes. */
  get offset(): number {
    return this.at;
  }

  /** Bytes not read yet. */
  get left(): number {
    return this.end - this.at;
  }

  int(field: string): number {
    return this.bytes.readInt32BE(this.take(4, field));
  }

  unsigned(field: string): number {
    return this.bytes.readUInt32BE(this.take(4, field));
  }

  hyper(field: string): bigint {
    return this.bytes.readBigInt64BE(this.take(8, field));
  }

  unsignedHyper(field: string): bigint {
    return this.bytes.readBigUInt64BE(this.take(8, field));
  }

  double(field: string): number {
    return this.bytes.readDoubleBE(this.take(8, field));
  }

  bool(field: string): boolean {
    return this.unsigned(field) !== 0;
  }

  /** `maxLength` in bytes. The result shares the reader's memory. */
  opaque(field: string, maxLength: number): Buffer {
    const length = this.unsigned(field);
    if (length > maxLength) {
      throw new XdrError(field, this.at - 4, `${length} bytes announced, at most ${maxLength} fit`);
    }
    const start = this.take(Math.ceil(length / 4) * 4, field);
    return this.bytes.subarray(start, start + length);
  }

  /** UTF-8, `maxLength` in bytes. */
  string(field: string, maxLength: number): string {
    const offset = this.at;
    try {
      return utf8.decode(this.opaque(field, maxLength));
    } catch (error) {
      if (error instanceof XdrError) throw error;
      throw new XdrError(field, offset, 'not valid UTF-8');
    }
  }

  optional<T>(field: string, read: () => T): T | null {
    return this.bool(field) ? read() : null;
  }

  /**
   * An array's count: checked against `max` and against the bytes that `smallest` ones would need.
   */
  count(field: string, max: number, smallest: number): number {
    const count = this.unsigned(field);
    if (count > max || count * smallest > this.left) {
      throw new XdrError(
        field,
        this.at - 4,
        `${count} entries announced, at most ${Math.min(max, Math.floor(this.left / smallest))} fit`,
      );
    }
    return count;
  }

  private take(size: number, field: string): number {
    const start = this.at;
    if (size > this.end - start) {
      throw new XdrError(field, start, `${size} bytes needed, ${this.end - start} left`);
    }
    this.at = start + size;
    return start;
  }
}
