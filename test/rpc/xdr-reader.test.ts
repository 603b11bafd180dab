import { expect } from 'chai';
import { XdrError, XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

function expectXdrError(action: () => unknown, field: string, offset: number): XdrError {
  try {
    action();
  } catch (error) {
    expect(error).to.be.instanceOf(XdrError);
    const xdrError = error as XdrError;
    expect(xdrError).to.include({ code: 'XDR', field, offset });
    expect(xdrError.message).to.match(new RegExp(`^${field} at byte ${offset}: `));
    return xdrError;
  }
  return expect.fail('no error');
}

describe('XdrReader', () => {
  const reads: [string, string, (reader: XdrReader) => unknown, unknown][] = [
    ['int', '7fffffff', (r) => r.int('f'), 0x7fffffff],
    ['int', 'ffffffff', (r) => r.int('f'), -1],
    ['int', '80000000', (r) => r.int('f'), -0x80000000],
    ['unsigned', 'ffffffff', (r) => r.unsigned('f'), 0xffffffff],
    ['hyper', '8000000000000000', (r) => r.hyper('f'), -(2n ** 63n)],
    ['hyper', '7fffffffffffffff', (r) => r.hyper('f'), 2n ** 63n - 1n],
    ['unsigned hyper', 'ffffffffffffffff', (r) => r.unsignedHyper('f'), 2n ** 64n - 1n],
    ['double', '3ff8000000000000', (r) => r.double('f'), 1.5],
    ['double', 'fff0000000000000', (r) => r.double('f'), -Infinity],
    ['double', '7ff8000000000000', (r) => r.double('f'), NaN],
    ['bool', '00000000', (r) => r.bool('f'), false],
    ['bool', '00000001', (r) => r.bool('f'), true],
    ['empty opaque', '00000000', (r) => r.opaque('f', 0), Buffer.alloc(0)],
    ['opaque', '00000004 01020304', (r) => r.opaque('f', 4), hex('01020304')],
    ['padded opaque', '00000005 0102030405 000000', (r) => r.opaque('f', 5), hex('0102030405')],
    ['string', '00000003 61c3a4 00', (r) => r.string('f', 3), 'aä'],
    ['string with a NUL', '00000002 6100 0000', (r) => r.string('f', 9), 'a\0'],
    ['string that starts with a BOM', '00000004 efbbbf61', (r) => r.string('f', 4), '\ufeffa'],
    ['present value', '00000001 00000007', (r) => r.optional('f', () => r.int('f')), 7],
    ['absent value', '00000000', (r) => r.optional('f', () => r.int('f')), null],
    ['count', '00000000', (r) => r.count('f', 0, 4), 0],
  ];
  for (const [name, bytes, read, value] of reads) {
    it(`reads ${name} ${bytes}, and nothing beyond it`, () => {
      const encoded = hex(bytes);
      const amid = Buffer.concat([hex('a5a5a5'), encoded, hex('a5a5a5a5')]);
      const reader = new XdrReader(amid, 3);
      expect(read(reader)).to.eql(value);
      expect(reader.offset).to.equal(3 + encoded.length);
      expect(reader.left).to.equal(4);
    });

    it(`throws on ${name} ${bytes} cut short at every byte, though the memory goes on`, () => {
      const encoded = hex(bytes);
      for (let end = 0; end < encoded.length; end++) {
        // The first word may be a length, a count or a marker; what it announces is missed behind
        // it.
        const offset = end >= 4 && !/^(u?n?signed )?hyper|^double/.test(name) ? 4 : 0;
        expectXdrError(() => read(new XdrReader(encoded, 0, end)), 'f', offset);
        expectXdrError(() => read(new XdrReader(encoded.subarray(0, end))), 'f', offset);
      }
    });
  }

  it('reads one value after the other', () => {
    const writer = new XdrWriter().int(-5).string('qemu:///system').hyper(-1n).bool(true);
    const reader = new XdrReader(writer.opaque(hex('ff')).double(0.1).finish());
    expect(reader.int('a')).to.equal(-5);
    expect(reader.string('b', 100)).to.equal('qemu:///system');
    expect(reader.hyper('c')).to.equal(-1n);
    expect(reader.bool('d')).to.be.true;
    expect(reader.opaque('e', 1)).to.eql(hex('ff'));
    expect(reader.double('f')).to.equal(0.1);
    expect(reader.left).to.equal(0);
    expectXdrError(() => reader.int('g'), 'g', 52);
  });

  it('says how many bytes are missing', () => {
    const { message } = expectXdrError(() => new XdrReader(hex('000000')).int('flags'), 'flags', 0);
    expect(message).to.equal('flags at byte 0: 4 bytes needed, 3 left');
  });

  describe('is as lenient as libvirt', () => {
    for (const marker of ['00000001', '00000002', '01000000', '80000000', 'ffffffff']) {
      it(`takes the optional marker and the boolean ${marker} for true`, () => {
        const reader = new XdrReader(hex(`${marker} 00000009 ${marker}`));
        expect(reader.optional('name', () => reader.int('name'))).to.equal(9);
        expect(reader.bool('flag')).to.be.true;
      });
    }

    it('does not look at padding', () => {
      const reader = new XdrReader(hex('00000001 61ffffff 00000007'));
      expect(reader.string('name', 1)).to.equal('a');
      expect(reader.int('next')).to.equal(7);
    });
  });

  describe('does not believe a length', () => {
    const maximum = 8;
    for (const length of [9, 0x7fffffff, 0x80000000, 0xfffffffd, 0xffffffff]) {
      it(`of ${length} bytes where ${maximum} are allowed`, () => {
        const bytes = Buffer.alloc(64);
        bytes.writeUInt32BE(length, 8);
        const reader = new XdrReader(bytes, 8);
        const { message } = expectXdrError(() => reader.opaque('data', maximum), 'data', 8);
        expect(message).to.contain(`${length} bytes announced, at most 8`);
        expectXdrError(() => new XdrReader(bytes, 8).string('data', maximum), 'data', 8);
      });
    }

    it('that is allowed but more than what is left', () => {
      for (const length of [5, 8, 0x7fffffff, 0xffffffff]) {
        const bytes = Buffer.concat([Buffer.alloc(4), hex('01020304')]);
        bytes.writeUInt32BE(length, 0);
        expectXdrError(() => new XdrReader(bytes).opaque('data', 2 ** 32), 'data', 4);
      }
    });

    it('whose padding is not there', () => {
      expectXdrError(() => new XdrReader(hex('00000002 6162 00')).string('name', 9), 'name', 4);
    });
  });

  describe('does not believe a count', () => {
    for (const [count, max, smallest, left] of [
      [3, 2, 4, 64],
      [2, 9, 12, 23],
      [0x40000000, 0xffffffff, 4, 64],
      [0xffffffff, 0xffffffff, 1, 64],
    ] as const) {
      it(`of ${count}, of ${max} allowed, of ${smallest} bytes each in ${left} bytes`, () => {
        const bytes = Buffer.alloc(4 + left);
        bytes.writeUInt32BE(count);
        const reader = new XdrReader(bytes);
        const { message } = expectXdrError(() => reader.count('list', max, smallest), 'list', 0);
        expect(message).to.contain(`${count} entries announced`);
      });
    }

    it('and takes the most that fits', () => {
      const bytes = Buffer.alloc(28);
      bytes.writeUInt32BE(2);
      expect(new XdrReader(bytes).count('list', 2, 12)).to.equal(2);
    });
  });

  for (const bytes of ['ff', 'c3', 'c080', 'eda080', 'f4908080', '61ff62']) {
    it(`throws on a string of ${bytes}, which is not UTF-8`, () => {
      const encoded = new XdrWriter().int(0).opaque(hex(bytes)).finish();
      const reader = new XdrReader(encoded, 4);
      const { message } = expectXdrError(() => reader.string('name', 9), 'name', 4);
      expect(message).to.contain('not valid UTF-8');
    });
  }

  it('hands out opaque data in the memory it was given', () => {
    const bytes = hex('00000004 01020304');
    const data = new XdrReader(bytes).opaque('data', 4);
    expect(data.buffer).to.equal(bytes.buffer);
    expect(data.byteOffset).to.equal(bytes.byteOffset + 4);
  });
});
