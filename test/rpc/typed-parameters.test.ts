import { expect } from 'chai';
import { headerLength } from '../../lib/rpc/frame.js';
import {
  readTypedParameters,
  writeTypedParameters,
  type TypedParameter,
} from '../../lib/rpc/typed-parameters.js';
import { XdrError, XdrReader } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { admin } from './fixtures.js';

const encoded = (parameters: readonly TypedParameter[]): Buffer => {
  const writer = new XdrWriter();
  writeTypedParameters(writer, parameters);
  return writer.finish();
};
const decoded = (bytes: Buffer, max = 32): TypedParameter[] =>
  readTypedParameters(new XdrReader(bytes), max);

describe('typed parameters', () => {
  const values: TypedParameter[] = [
    { field: 'int', type: 'int', value: -0x80000000 },
    { field: 'unsigned', type: 'unsigned', value: 0xffffffff },
    { field: 'hyper', type: 'hyper', value: -(2n ** 63n) },
    { field: 'unsigned hyper', type: 'unsignedHyper', value: 2n ** 64n - 1n },
    { field: 'double', type: 'double', value: Math.PI },
    { field: 'true', type: 'boolean', value: true },
    { field: 'false', type: 'boolean', value: false },
    { field: 'string', type: 'string', value: 'Größe' },
    { field: '', type: 'string', value: '' },
  ];

  it('of all seven types come back as they were', () => {
    expect(decoded(encoded(values))).to.eql(values);
    expect(decoded(encoded([]))).to.eql([]);
  });

  it('carry the type numbers of the protocol', () => {
    const numbers = values.map((parameter) => {
      const reader = new XdrReader(encoded([parameter]), 4);
      reader.string('field', 80);
      return reader.int('type');
    });
    expect(numbers).to.eql([1, 2, 3, 4, 5, 6, 6, 7, 7]);
  });

  it('of libvirtd are read: a thread pool', () => {
    const names = ['minWorkers', 'maxWorkers', 'nWorkers', 'freeWorkers', 'prioWorkers'];
    const parameters = decoded(admin.threadpoolReply.subarray(headerLength));
    expect(parameters).to.eql(
      [...names, 'jobQueueDepth'].map((field, at) => ({
        field,
        type: 'unsigned',
        value: [5, 20, 5, 5, 5, 0][at],
      })),
    );
    expect(encoded(parameters)).to.eql(admin.threadpoolReply.subarray(headerLength));
  });

  it('of libvirtd are read: a client', () => {
    const payload = admin.clientInfoReply.subarray(headerLength);
    const parameters = decoded(payload);
    expect(parameters.map(({ field, type }) => `${field} ${type}`)).to.eql([
      'readonly boolean',
      'unix_user_id int',
      'unix_user_name string',
      'unix_group_id int',
      'unix_group_name string',
      'unix_process_id int',
    ]);
    expect(parameters[2]).to.eql({ field: 'unix_user_name', type: 'string', value: 'root' });
    expect(encoded(parameters)).to.eql(payload);
  });

  it('of virt-admin are read amid its arguments', () => {
    const reader = new XdrReader(admin.threadpoolSetCall, headerLength);
    expect(reader.string('server', 100)).to.equal('libvirtd');
    expect(readTypedParameters(reader, 32)).to.eql([
      { field: 'maxWorkers', type: 'unsigned', value: 21 },
      { field: 'minWorkers', type: 'unsigned', value: 6 },
    ]);
    expect(reader.unsigned('flags')).to.equal(0);
    expect(reader.left).to.equal(0);
  });

  it('cut short anywhere throw', () => {
    const bytes = encoded(values);
    for (let end = 0; end < bytes.length; end++) {
      expect(() => decoded(bytes.subarray(0, end)), `${end} bytes`).to.throw(XdrError);
    }
  });

  for (const count of [33, 0x15555556, 0xffffffff]) {
    it(`announced as ${count} where 32 are allowed throw`, () => {
      const bytes = Buffer.concat([encoded(values), Buffer.alloc(4096)]);
      bytes.writeUInt32BE(count);
      expect(() => decoded(bytes))
        .to.throw(XdrError)
        .that.includes({ field: 'params', offset: 0 });
    });
  }

  it('announced as more than the bytes can hold throw before any is read', () => {
    const bytes = encoded(values.slice(0, 2));
    bytes.writeUInt32BE(30);
    expect(() => decoded(bytes))
      .to.throw(XdrError, '30 entries announced, at most 3 fit')
      .that.includes({ field: 'params', offset: 0 });
  });

  it('may be as many as allowed', () => {
    const many = Array.from({ length: 32 }, (): TypedParameter => values[0]!);
    expect(decoded(encoded(many))).to.have.length(32);
  });

  for (const type of [0, 8, -1, 0x7fffffff, 0x01000000]) {
    it(`of the unknown type ${type} throw, naming field and place`, () => {
      const bytes = new XdrWriter().unsigned(1).string('colour').int(type).int(0).finish();
      expect(() => decoded(bytes))
        .to.throw(XdrError, `${type} is no type`)
        .that.includes({ field: 'params.type of colour', offset: 16 });
    });
  }

  it('take any boolean but 0 for true', () => {
    const bytes = new XdrWriter().unsigned(1).string('b').int(6).unsigned(0x01000000).finish();
    expect(decoded(bytes)).to.eql([{ field: 'b', type: 'boolean', value: true }]);
  });

  it('have a name of at most 79 bytes', () => {
    const named = (length: number): Buffer =>
      encoded([{ field: 'x'.repeat(length), type: 'int', value: 1 }]);
    expect(decoded(named(79))).to.have.length(1);
    expect(() => decoded(named(80))).to.throw(XdrError, '80 bytes announced');
  });
});
