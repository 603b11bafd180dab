import { expect } from 'chai';
import {
  encodeCall,
  encodeFrame,
  encodeKeepalive,
  encodeReply,
  headerLength,
  keepalive,
  maxFrameLength,
  messageType,
  procedureOf,
  program,
  programOf,
  serialOf,
  status,
  statusOf,
  typeOf,
  versionOf,
} from '../../lib/rpc/frame.js';
import { download, errors, events, keepaliveFrames, session, upload } from './fixtures.js';

const fieldsOf = (bytes: Buffer, start = 0) => ({
  program: programOf(bytes, start),
  version: versionOf(bytes, start),
  procedure: procedureOf(bytes, start),
  type: typeOf(bytes, start),
  serial: serialOf(bytes, start),
  status: statusOf(bytes, start),
});

describe('frame', () => {
  const remote = { program: program.remote, version: 1 };
  const table = [
    ['a call', session.openCall, { ...remote, procedure: 1, type: 0, serial: 2, status: 0 }],
    ['a reply', session.openReply, { ...remote, procedure: 1, type: 1, serial: 2, status: 0 }],
    ['an event', events.poolStopped, { ...remote, procedure: 370, type: 2, serial: 1, status: 0 }],
    ['stream data', upload.data, { ...remote, procedure: 208, type: 3, serial: 10, status: 2 }],
    ['a hole', upload.hole, { ...remote, procedure: 208, type: 6, serial: 10, status: 2 }],
    ['an end', download.finish, { ...remote, procedure: 209, type: 3, serial: 15, status: 0 }],
    [
      'an error',
      errors.unknownVersion,
      { ...remote, version: 2, procedure: 1, type: 1, serial: 2, status: 1 },
    ],
    [
      'a keepalive',
      keepaliveFrames.ping,
      { program: program.keepalive, version: 1, procedure: 1, type: 2, serial: 0, status: 0 },
    ],
  ] as const;
  for (const [name, bytes, fields] of table) {
    it(`reads the header of ${name}, wherever it lies`, () => {
      expect(fieldsOf(bytes)).to.eql(fields);
      const amid = Buffer.concat([Buffer.alloc(5, 0xff), bytes, Buffer.alloc(3, 0xff)]);
      expect(fieldsOf(amid, 5)).to.eql(fields);
    });
    it(`builds the very bytes of ${name}`, () => {
      expect(encodeFrame(fields, bytes.subarray(headerLength))).to.eql(bytes);
    });
  }

  it('reads fields as unsigned', () => {
    const frame = encodeFrame({
      program: 0xffffffff,
      version: 0xfffffffe,
      procedure: 0xfffffffd,
      type: 0xfffffffc,
      serial: 0xfffffffb,
      status: 0xfffffffa,
    });
    expect(fieldsOf(frame)).to.eql({
      program: 0xffffffff,
      version: 0xfffffffe,
      procedure: 0xfffffffd,
      type: 0xfffffffc,
      serial: 0xfffffffb,
      status: 0xfffffffa,
    });
  });

  it('builds the calls and keepalives that virsh sends', () => {
    expect(encodeCall(66, 0)).to.eql(session.authListCall);
    expect(encodeCall(1, 2, session.openCall.subarray(headerLength))).to.eql(session.openCall);
    expect(encodeKeepalive(keepalive.ping)).to.eql(keepaliveFrames.ping);
    expect(encodeKeepalive(keepalive.pong)).to.eql(keepaliveFrames.pong);
  });

  it('answers a call under its program, version, procedure and serial', () => {
    const call = { program: program.remote, procedure: 110, serial: 3 };
    expect(encodeReply(call, session.getUriReply.subarray(headerLength))).to.eql(
      session.getUriReply,
    );
    expect(encodeReply({ program: program.remote, procedure: 1, serial: 2 })).to.eql(
      session.openReply,
    );
    // Whole headers may be passed: their type and status are those of the call.
    const whole = { ...call, version: 2, type: messageType.call, status: status.error };
    expect(fieldsOf(encodeReply(whole))).to.eql({
      ...call,
      version: 2,
      type: messageType.reply,
      status: status.ok,
    });
  });

  it('writes the length of the whole frame into its first word', () => {
    for (const length of [headerLength, headerLength + 1, 4096]) {
      const frame = encodeCall(1, 1, Buffer.alloc(length - headerLength));
      expect(frame.readUInt32BE(0)).to.equal(length);
      expect(frame).to.have.length(length);
    }
    expect(maxFrameLength).to.equal(32 * 1024 * 1024 + 4);
  });
});
