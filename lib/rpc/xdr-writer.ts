/** Writes XDR values into memory that grows by half. */
export class XdrWriter {
  private bytes: Buffer;
  private at = 0;

  /** `size` in bytes to begin with. */
  constructor(size = 128) {
    this.bytes = Buffer.allocUnsafe(size);
  }

  int(value: number): this {
    this.at = this.room(4).writeInt32BE(value, this.at);
    return this;
  }

  unsigned(value: number): this {
    this.at = this.room(4).writeUInt32BE(value, this.at);
    return this;
  }

  hyper(value: bigint): this {
    this.at = this.room(8).writeBigInt64BE(value, this.at);
    return this;
  }

  unsignedHyper(value: bigint): this {
    this.at = this.room(8).writeBigUInt64BE(value, this.at);
    return this;
  }

  double(value: number): this {
    this.at = this.room(8).writeDoubleBE(value, this.at);
    return this;
  }

  bool(value: boolean): this {
    return this.unsigned(value ? 1 : 0);
  }

  opaque(value: Uint8Array): this {
    this.unsigned(value.length);
    const padded = Math.ceil(value.length / 4) * 4;
    const bytes = this.room(padded);
    bytes.set(value, this.at);
    bytes.fill(0, this.at + value.length, this.at + padded);
    this.at += padded;
    return this;
  }

  string(value: string): this {
    return this.opaque(Buffer.from(value, 'utf8'));
  }

  optional<T>(value: T | null | undefined, write: (value: T) => void): this {
    const present = value !== null && value !== undefined;
    this.bool(present);
    if (present) write(value);
    return this;
  }

  /** What was written so far; shares the writer's memory, so write no more afterwards. */
  finish(): Buffer {
    return this.bytes.subarray(0, this.at);
  }

  private room(size: number): Buffer {
    if (this.at + size > this.bytes.length) {
      const grown = Buffer.allocUnsafe(
        Math.max(this.at + size, Math.floor(this.bytes.length * 1.5)),
      );
      this.bytes.copy(grown, 0, 0, this.at);
      this.bytes = grown;
    }
    return this.bytes;
  }
}
