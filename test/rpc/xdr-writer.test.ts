import { expect } from 'chai';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { seededRandom } from './frames.js';

const written = (write: (writer: XdrWriter) => XdrWriter): string =>
  write(new XdrWriter(0)).finish().toString('hex');

describe('XdrWriter', () => {
  const table: [string, (writer: XdrWriter) => XdrWriter, string][] = [
    ['nothing', (w) => w, ''],
    ['int', (w) => w.int(-2).int(0x7fffffff), 'fffffffe7fffffff'],
    ['unsigned', (w) => w.unsigned(0xffffffff), 'ffffffff'],
    ['hyper', (w) => w.hyper(-(2n ** 63n)), '8000000000000000'],
    ['unsigned hyper', (w) => w.unsignedHyper(2n ** 64n - 1n), 'ffffffffffffffff'],
    ['double', (w) => w.double(-1.5), 'bff8000000000000'],
    ['bool', (w) => w.bool(true).bool(false), '0000000100000000'],
    ['opaque', (w) => w.opaque(Buffer.alloc(0)), '00000000'],
    ['opaque', (w) => w.opaque(Uint8Array.of(1, 2, 3, 4)), '0000000401020304'],
    ['opaque', (w) => w.opaque(Uint8Array.of(1, 2, 3, 4, 5)), '000000050102030405000000'],
    ['string', (w) => w.string('aä'), '0000000361c3a400'],
    ['string', (w) => w.string(''), '00000000'],
    ['present value', (w) => w.optional(0, (value) => w.int(value)), '0000000100000000'],
    ['present value', (w) => w.optional('', (value) => w.string(value)), '0000000100000000'],
    ['absent value', (w) => w.optional(null, () => expect.fail('called')), '00000000'],
    ['absent value', (w) => w.optional(undefined, () => expect.fail('called')), '00000000'],
  ];
  for (const [name, write, hex] of table) {
    it(`writes ${name} as ${hex || 'no byte'}`, () => {
      expect(written(write)).to.equal(hex);
    });
  }

  const outOfRange: [string, (writer: XdrWriter) => unknown][] = [
    ['int 2^31', (w) => w.int(2 ** 31)],
    ['int -2^31 - 1', (w) => w.int(-(2 ** 31) - 1)],
    ['unsigned -1', (w) => w.unsigned(-1)],
    ['unsigned 2^32', (w) => w.unsigned(2 ** 32)],
    ['hyper 2^63', (w) => w.hyper(2n ** 63n)],
    ['unsigned hyper -1', (w) => w.unsignedHyper(-1n)],
  ];
  for (const [name, write] of outOfRange) {
    it(`refuses ${name} instead of writing another number`, () => {
      expect(() => write(new XdrWriter())).to.throw(RangeError);
    });
  }

  it('keeps what was written, whenever it grows', () => {
    const random = seededRandom(3);
    for (const size of [0, 1, 7, 128]) {
      const writer = new XdrWriter(size);
      const expected: Buffer[] = [];
      for (let at = 0; at < 200; at++) {
        // Memory of the pool is dirty; padding must be zero all the same.
        Buffer.allocUnsafe(512).fill(0xff);
        const data = Buffer.alloc(Math.floor(random() * 90), at + 1);
        writer.opaque(data);
        expected.push(data);
      }
      const bytes = writer.finish();
      const reader = new XdrReader(bytes);
      for (const data of expected) {
        expect(reader.opaque('data', 100)).to.eql(data);
        const padding = bytes.subarray(
          reader.offset - ((4 - (data.length % 4)) % 4),
          reader.offset,
        );
        expect(padding.every((byte) => byte === 0)).to.be.true;
      }
      expect(reader.left).to.equal(0);
    }
  });
});
