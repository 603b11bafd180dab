import { expect } from 'chai';
import { DerReader, derTag, derTime, objectIdentifierText } from '../../lib/auth/der.js';

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const faulty = (read: () => unknown): void => {
  expect(read).to.throw().with.property('code', 'DER');
};

describe('DerReader', () => {
  it('reads elements one after the other', () => {
    const reader = new DerReader(bytes('30 06 02 01 05 0c 01 41 05 00'));
    const inner = reader.enter(derTag.sequence);
    expect(inner.optional(derTag.boolean)).to.equal(null);
    expect(inner.expect(derTag.integer).content).to.deep.equal(bytes('05'));
    const { tag, content, encoded } = inner.next();
    expect([tag, content.toString(), encoded.toString('hex')]).to.deep.equal([12, 'A', '0c0141']);
    expect(inner.done).to.equal(true);
    expect(reader.done).to.equal(false);
    expect(reader.next().content).to.have.length(0);
    expect(reader.done).to.equal(true);
    expect(reader.optional(derTag.integer)).to.equal(null);
    faulty(() => reader.next());
  });

  it('reads lengths in their long form', () => {
    for (const [head, length] of [
      ['04 7f', 127],
      ['04 81 80', 128],
      ['04 82 01 00', 256],
      ['04 83 01 00 00', 65536],
    ] as const) {
      const reader = new DerReader(Buffer.concat([bytes(head), Buffer.alloc(length)]));
      expect(reader.next().content).to.have.length(length);
    }
  });

  const malformed = {
    'an element that ends with its tag': '04',
    'a length that is cut off': '04 82 01',
    'content that is cut off': '04 02 00',
    'the indefinite length of BER': '24 80 04 00 00 00',
    'a length with a leading zero': '04 82 00 80',
    'a short length in the long form': '04 81 01 00',
    'a length of five bytes': '04 85 00 00 00 00 01 00',
    'an enormous length': '04 84 ff ff ff ff 00',
    'a tag of several bytes': '1f 81 00 00',
  };
  for (const [title, hex] of Object.entries(malformed)) {
    it(`refuses ${title}`, () => faulty(() => new DerReader(bytes(hex)).next()));
  }

  it('refuses another tag than the expected one', () => {
    faulty(() => new DerReader(bytes('02 01 05')).expect(derTag.boolean, derTag.octetString));
    faulty(() => new DerReader(bytes('02 01 05')).enter(derTag.sequence));
  });
});

describe('objectIdentifierText', () => {
  it('reads small and large arcs', () => {
    expect(objectIdentifierText(bytes('55 04 03'))).to.equal('2.5.4.3');
    expect(objectIdentifierText(bytes('2a 86 48 86 f7 0d'))).to.equal('1.2.840.113549');
    expect(objectIdentifierText(bytes('88 37 01'))).to.equal('2.999.1');
    expect(objectIdentifierText(bytes('27'))).to.equal('0.39');
  });

  it('refuses what is empty, cut off, padded or endless', () => {
    for (const hex of ['', '55 84', '55 80 03', '55'.repeat(129), `2a${'7b'.repeat(50)}`]) {
      faulty(() => objectIdentifierText(bytes(hex)));
    }
  });
});

describe('derTime', () => {
  const time = (tag: number, text: string): string =>
    derTime({ tag, content: Buffer.from(text), encoded: Buffer.alloc(0) }).toISOString();

  it('reads both forms', () => {
    expect(time(derTag.utcTime, '491231235959Z')).to.equal('2049-12-31T23:59:59.000Z');
    expect(time(derTag.utcTime, '500101000000Z')).to.equal('1950-01-01T00:00:00.000Z');
    expect(time(derTag.generalizedTime, '20500101000000Z')).to.equal('2050-01-01T00:00:00.000Z');
  });

  it('refuses other forms', () => {
    faulty(() => time(derTag.utcTime, '4912312359Z'));
    faulty(() => time(derTag.utcTime, '491231235959+0100'));
    faulty(() => time(derTag.generalizedTime, '20500101000000.5Z'));
    faulty(() => time(derTag.generalizedTime, ''));
  });
});
