import { expect } from 'chai';
import { headerLength, procedureOf } from '../../lib/rpc/frame.js';
import {
  authType,
  encodeAuthList,
  encodeIdentityArguments,
  encodeInt,
  encodeOpenArguments,
  encodeSaslReply,
  encodeString,
  feature,
  openReadOnly,
  procedure,
  readAuthList,
  readFeature,
  readOpenArguments,
  readSaslStart,
  readSaslStep,
} from '../../lib/rpc/session-messages.js';
import type { TypedParameter } from '../../lib/rpc/typed-parameters.js';
import { XdrError } from '../../lib/rpc/xdr-reader.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { openNamed, sasl, session, setIdentity } from './fixtures.js';

const payloadOf = (frame: Buffer): Buffer => frame.subarray(headerLength);
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

/** Every beginning of `payload` but the whole of it throws. */
function expectCutShort(payload: Buffer, read: (payload: Buffer) => unknown): void {
  read(payload);
  for (let end = 0; end < payload.length; end++) {
    expect(() => read(payload.subarray(0, end)), `${end} bytes`).to.throw(XdrError);
  }
}

describe('session messages', () => {
  it('have the numbers that libvirt uses', () => {
    for (const [number, frame] of [
      [procedure.authList, session.authListCall],
      [procedure.connectSupportsFeature, session.supportsKeepaliveCall],
      [procedure.connectOpen, session.openCall],
      [procedure.connectRegisterCloseCallback, session.registerCloseCall],
      [procedure.connectClose, session.closeCall],
      [procedure.connectSetIdentity, setIdentity.call],
      [procedure.authSaslInit, sasl.initReply],
      [procedure.authSaslStart, sasl.startCall],
      [procedure.authSaslStep, sasl.stepCall],
    ] as const) {
      expect(procedureOf(frame, 0)).to.equal(number);
    }
  });

  describe('CONNECT_OPEN', () => {
    const table: [string, Buffer, { name: string | null; flags: number }][] = [
      ['of virsh with an empty URI', payloadOf(session.openCall), { name: '', flags: 0 }],
      ['of virsh with a URI', payloadOf(openNamed.readWrite), { name: 'qemu:///system', flags: 0 }],
      [
        'of virsh, read-only',
        payloadOf(openNamed.readOnly),
        { name: 'qemu:///system', flags: openReadOnly },
      ],
      ['without a name', hex('00000000 00000004'), { name: null, flags: 4 }],
    ];
    for (const [name, payload, value] of table) {
      it(`${name} is read and written`, () => {
        expect(readOpenArguments(payload)).to.eql(value);
        expect(encodeOpenArguments(value)).to.eql(payload);
      });
      it(`${name}, cut short, throws`, () => expectCutShort(payload, readOpenArguments));
    }

    it("is read with go-libvirt's marker, and with bytes behind the arguments", () => {
      const payload = Buffer.concat([payloadOf(openNamed.readWrite), hex('00000007')]);
      payload.writeUInt32BE(0x01000000);
      expect(readOpenArguments(payload)).to.eql({ name: 'qemu:///system', flags: 0 });
    });

    it('of a URI longer than 4 MiB throws', () => {
      const payload = Buffer.alloc(4_194_304 + 16);
      payload.writeUInt32BE(1, 0);
      payload.writeUInt32BE(4_194_305, 4);
      expect(() => readOpenArguments(payload)).to.throw(XdrError, 'name at byte 4');
      payload.writeUInt32BE(4_194_304, 4);
      expect(readOpenArguments(payload).name).to.have.length(4_194_304);
    });
  });

  it('CONNECT_SUPPORTS_FEATURE of virsh is read and its reply written', () => {
    const payload = payloadOf(session.supportsKeepaliveCall);
    expect(readFeature(payload)).to.equal(feature.programKeepalive);
    expectCutShort(payload, readFeature);
    expect(encodeInt(1)).to.eql(payloadOf(session.supportsKeepaliveReply));
    expect(encodeInt(-1)).to.eql(hex('ffffffff'));
  });

  it('CONNECT_GET_URI is answered as by libvirtd', () => {
    expect(encodeString('qemu:///system')).to.eql(payloadOf(session.getUriReply));
  });

  describe('AUTH_LIST', () => {
    it('of libvirtd is read and written', () => {
      const payload = payloadOf(session.authListReply);
      expect(readAuthList(payload)).to.eql([authType.none]);
      expect(encodeAuthList([authType.none])).to.eql(payload);
      expectCutShort(payload, readAuthList);
    });

    it('may have several entries or none', () => {
      for (const types of [[], [authType.sasl, authType.polkit]]) {
        expect(readAuthList(encodeAuthList(types))).to.eql(types);
      }
    });

    it('of more entries than allowed, or than there are, throws', () => {
      const most = encodeAuthList(Array.from({ length: 20 }, () => 1));
      expect(readAuthList(most)).to.have.length(20);
      expect(() => readAuthList(encodeAuthList(Array.from({ length: 21 }, () => 1)))).to.throw(
        XdrError,
      );
      expect(() => readAuthList(hex('00000002 00000001'))).to.throw(XdrError);
      expect(() => readAuthList(hex('ffffffff 00000001'))).to.throw(XdrError);
    });
  });

  it("CONNECT_SET_IDENTITY is written as by libvirt's own client", () => {
    const text = (field: string, value: string): TypedParameter => ({
      field,
      type: 'string',
      value,
    });
    const identity: TypedParameter[] = [
      text('user-name', 'fred'),
      { field: 'unix-user-id', type: 'unsignedHyper', value: 1000n },
      text('group-name', 'fred'),
      { field: 'unix-group-id', type: 'unsignedHyper', value: 1000n },
      { field: 'process-id', type: 'hyper', value: 4321n },
      { field: 'process-time', type: 'unsignedHyper', value: 987654n },
      text('sasl-user-name', 'fred@example.org'),
      text('x509-distinguished-name', 'CN=fred,O=example'),
      text('selinux-context', 'unconfined_u:unconfined_r:unconfined_t:s0'),
    ];
    expect(encodeIdentityArguments(identity)).to.eql(payloadOf(setIdentity.call));
  });

  describe('SASL', () => {
    const clientFirst = /^n,,n=fred,r=[\x21-\x7e]{32,}$/;

    it('INIT is answered as by libvirtd', () => {
      expect(encodeString('SCRAM-SHA-256')).to.eql(payloadOf(sasl.initReply));
    });

    it('START and STEP of virsh are read', () => {
      const start = readSaslStart(payloadOf(sasl.startCall));
      expect(start.mechanism).to.equal('SCRAM-SHA-256');
      expect(start.data?.toString('latin1')).to.match(clientFirst);
      const step = readSaslStep(payloadOf(sasl.stepCall));
      expect(step.data?.toString('latin1')).to.match(/^c=biws,r=[\x21-\x7e]+,p=[\w+/]{43}=$/);
    });

    it('START and STEP cut short throw', () => {
      expectCutShort(payloadOf(sasl.startCall), readSaslStart);
      expectCutShort(payloadOf(sasl.stepCall), readSaslStep);
    });

    it('replies are written as by libvirtd', () => {
      for (const [complete, frame] of [
        [false, sasl.startReply],
        [true, sasl.stepReply],
      ] as const) {
        // A reply differs from a step only in the word before it.
        const { data } = readSaslStep(payloadOf(frame).subarray(4));
        expect(encodeSaslReply(complete, data)).to.eql(payloadOf(frame));
      }
    });

    it('tells a NULL buffer from an empty one', () => {
      expect(readSaslStep(hex('00000001 00000000'))).to.eql({ data: null });
      expect(readSaslStep(hex('00000000 00000000'))).to.eql({ data: Buffer.alloc(0) });
      expect(encodeSaslReply(true, null)).to.eql(hex('00000001 00000001 00000000'));
      expect(encodeSaslReply(true, Buffer.alloc(0))).to.eql(hex('00000001 00000000 00000000'));
    });

    it('keeps all byte values, signed or not on the wire', () => {
      const data = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
      expect(readSaslStep(encodeSaslReply(false, data).subarray(4))).to.eql({ data });
      const bytes = hex('00000000 00000003 0000007f 00000080 ffffff80');
      expect(readSaslStep(bytes)).to.eql({ data: hex('7f8080') });
      // Written as where char is signed, which is what x86 peers send.
      expect(encodeSaslReply(false, hex('7f80'))).to.eql(
        hex('00000000 00000000 00000002 0000007f ffffff80'),
      );
    });

    it('data of more than 65536 bytes, or than there are, throws', () => {
      const step = (announced: number, present: number): Buffer => {
        const writer = new XdrWriter().bool(false).unsigned(announced);
        for (let at = 0; at < present; at++) writer.int(1);
        return writer.finish();
      };
      expect(readSaslStep(step(65_536, 65_536)).data).to.have.length(65_536);
      for (const payload of [step(65_537, 65_537), step(2, 1), step(0x40000001, 1)]) {
        expect(() => readSaslStep(payload)).to.throw(XdrError, 'data at byte 4');
      }
    });
  });
});
