/** Tags of X.690 that certificates and revocation lists hold. */
export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/**
 * The bytes are not the DER that was expected there. `offset` counts from the reader's first byte.
 */
export class DerError extends Error {
  override readonly name = 'DerError';
  readonly code = 'DER';
  readonly offset: number;

  constructor(offset: number, what: string) {
    super(`At byte ${offset}: ${what}`);
    this.offset = offset;
  }
}

/** One element. The buffers share the reader's memory. */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  /** Tag, length and content. */
  readonly encoded: Buffer;
}

/**
 * Reads the DER elements of a buffer one after the other (X.690, definite lengths in their shortest
 * form, tags of one byte). Every read checks what is left and throws DerError.
 */
export class DerReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  next(): DerElement {
    const start = this.#at;
    const tag = this.#byte();
    if ((tag & 0x1f) === 0x1f) throw new DerError(start, 'the tag has more than one byte.');
    const length = this.#length();
    const from = this.#at;
    if (length > this.#bytes.length - from) {
      throw new DerError(from, `${length} bytes announced, ${this.#bytes.length - from} left.`);
    }
    this.#at = from + length;
    return {
      tag,
      content: this.#bytes.subarray(from, this.#at),
      encoded: this.#bytes.subarray(start, this.#at),
    };
  }

  /** The next element, which must have one of these tags. */
  expect(...tags: number[]): DerElement {
    const start = this.#at;
    const element = this.next();
    if (!tags.includes(element.tag)) {
      throw new DerError(start, `an element with tag ${element.tag} is not expected there.`);
    }
    return element;
  }

  /** The next element if it has one of these tags, else null and nothing is read. */
  optional(...tags: number[]): DerElement | null {
    const tag = this.#bytes[this.#at];
    return tag !== undefined && tags.includes(tag) ? this.next() : null;
  }

  /** A reader of the elements inside the next one, which must have this tag. */
  enter(tag: number): DerReader {
    return new DerReader(this.expect(tag).content);
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw new DerError(this.#at, 'the bytes end inside an element.');
    this.#at += 1;
    return byte;
  }

  #length(): number {
    const start = this.#at;
    const first = this.#byte();
    if (first < 0x80) return first;
    const size = first & 0x7f;
    // Four bytes are more than any buffer of ours holds; size 0 is the indefinite form of BER.
    if (size === 0 || size > 4) throw new DerError(start, 'the length is not one of DER.');
    let length = 0;
    for (let index = 0; index < size; index += 1) length = length * 256 + this.#byte();
    const shortest = length < 0x80 ? 0 : Math.ceil((32 - Math.clz32(length)) / 8);
    if (size !== shortest) throw new DerError(start, 'the length is not in its shortest form.');
    return length;
  }
}

/** Characters of text, as GnuTLS's bound is; far above any identifier in use. */
const longestObjectIdentifier = 127;

/** An object identifier's content as text: '2.5.4.3'. */
export function objectIdentifierText(content: Buffer): string {
  const tooLong = (): DerError => new DerError(0, 'the object identifier is too long.');
  if (content.length > longestObjectIdentifier) throw tooLong();
  const arcs: bigint[] = [];
  let arc = 0n;
  let within = false;
  for (const [offset, byte] of content.entries()) {
    if (!within && byte === 0x80) throw new DerError(offset, 'an arc starts with a zero digit.');
    arc = (arc << 7n) | BigInt(byte & 0x7f);
    within = byte >= 0x80;
    if (within) continue;
    if (arcs.length === 0) {
      const first = arc < 80n ? arc / 40n : 2n;
      arcs.push(first, arc - first * 40n);
    } else {
      arcs.push(arc);
    }
    arc = 0n;
  }
  if (within || arcs.length === 0) {
    throw new DerError(content.length, 'the object identifier ends too early.');
  }
  const text = arcs.join('.');
  if (text.length > longestObjectIdentifier) throw tooLong();
  return text;
}

/**
 * A Time of X.509, UTCTime (1950 to 2049) or GeneralizedTime, both in UTC with seconds (RFC 5280).
 */
export function derTime({ tag, content }: DerElement): Date {
  const text = content.toString('latin1');
  const short = tag === derTag.utcTime;
  const digits = short ? `${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}` : text;
  const parts = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(digits);
  if (parts === null) throw new DerError(0, `"${text}" is not a time of a certificate.`);
  const [, year = 0, month = 0, ...rest] = parts.map(Number);
  return new Date(Date.UTC(year, month - 1, ...rest));
}
