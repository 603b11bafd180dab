import { expect } from 'chai';
import {
  headerLength,
  procedureOf,
  programOf,
  serialOf,
  typeOf,
  versionOf,
} from '../../lib/rpc/frame.js';
import {
  encodeErrorPayload,
  encodeErrorReply,
  encodeStreamAbort,
  errorCode,
  errorDomain,
  readErrorMessage,
  RpcError,
} from '../../lib/rpc/rpc-error.js';
import { XdrError, XdrReader } from '../../lib/rpc/xdr-reader.js';
import { errors } from './fixtures.js';

const { internal, rpc, noConnection, invalidArgument, operationDenied, system } = errorCode;
const errnoNoEntry = 2;
const errnoNoSpace = 28;

/** What libvirtd was asked to refuse, and our words for it. */
const refusals: [keyof typeof errors, RpcError][] = [
  ['callBeforeOpen', new RpcError(internal, errorDomain.rpc, 'hypervisor connection not open')],
  ['secondOpen', new RpcError(internal, errorDomain.rpc, 'connection already open')],
  ['unknownProcedure', new RpcError(rpc, errorDomain.rpc, 'unknown procedure: 9999')],
  ['unknownProgram', new RpcError(rpc, errorDomain.rpc, 'Cannot find program 4660 version 1')],
  ['unknownVersion', new RpcError(rpc, errorDomain.rpc, 'Cannot find program 536903814 version 2')],
  ['badStatus', new RpcError(rpc, errorDomain.rpc, 'Unexpected message status 1')],
  ['undecodable', new RpcError(rpc, errorDomain.rpc, 'Unable to decode message payload')],
  [
    'noDriver',
    new RpcError(noConnection, errorDomain.none, "URI '/system' does not include a driver name"),
  ],
  ['badUri', new RpcError(internal, errorDomain.uri, 'Unable to parse URI ::::')],
  [
    'badTransport',
    new RpcError(
      invalidArgument,
      errorDomain.remote,
      'remote_open: transport in URL not recognised (should be tls|unix|ssh|ext|tcp|libssh2|libssh)',
    ),
  ],
  [
    'noSocket',
    new RpcError(
      system,
      errorDomain.rpc,
      "Failed to connect socket to '/run/example/sock': No such file or directory",
      errnoNoEntry,
    ),
  ],
  ['readOnly', new RpcError(operationDenied, 20, 'read only access prevents virDomainDefineXML')],
  ['notSupported', new RpcError(errorCode.noSupport, 26, 'virInterfaceChangeBegin')],
  [
    'loginFailed',
    new RpcError(errorCode.authenticationFailed, errorDomain.rpc, 'authentication failed'),
  ],
  [
    'poolActive',
    new RpcError(errorCode.operationInvalid, 18, "storage pool 'p' is already active"),
  ],
  ['noServer', new RpcError(errorCode.noServer, errorDomain.rpc, "No server named 'nosuch'")],
  [
    'noClient',
    new RpcError(errorCode.noClient, errorDomain.rpc, "No client with matching ID '999'"),
  ],
];

const callOf = (frame: Buffer) => ({
  program: programOf(frame, 0),
  version: versionOf(frame, 0),
  procedure: procedureOf(frame, 0),
  serial: serialOf(frame, 0),
});

describe('RpcError', () => {
  for (const [name, error] of refusals) {
    it(`is the very bytes that libvirtd sends: ${name}`, () => {
      const reply = errors[name];
      expect(encodeErrorReply(callOf(reply), error).toString('hex')).to.equal(
        reply.toString('hex'),
      );
      expect(readErrorMessage(reply.subarray(headerLength))).to.equal(error.message);
    });
  }

  it('aborts a stream with the very bytes that libvirtd sends', () => {
    const error = new RpcError(
      system,
      38,
      'Unable to write /mnt/full: No space left on device',
      errnoNoSpace,
    );
    expect(encodeStreamAbort(callOf(errors.streamAbort), error)).to.eql(errors.streamAbort);
  });

  it('answers as a reply, whatever the header of the call says besides', () => {
    const call = { ...callOf(errors.badStatus), type: 0, status: 1 };
    const reply = encodeErrorReply(call, refusals[5]![1]);
    expect(typeOf(reply, 0)).to.equal(1);
    expect(reply).to.eql(errors.badStatus);
  });

  it('has version 1 where the call names none', () => {
    const { version, ...call } = callOf(errors.secondOpen);
    expect(version).to.equal(1);
    expect(encodeErrorReply(call, refusals[1]![1])).to.eql(errors.secondOpen);
  });

  it('has a message that is a full sentence for every code', () => {
    for (const code of Object.values(errorCode)) {
      const { message } = new RpcError(code, errorDomain.rpc, 'the detail');
      expect(message).to.match(/^([A-Za-z ]+[a-z](:| for) )?the detail$/);
    }
    expect(new RpcError(9999, 0, 'unheard of').message).to.equal('unheard of');
  });

  it('takes the detail literally', () => {
    for (const detail of ['%s', '$& $1 $$', "100% of 'ä'", '']) {
      const error = new RpcError(internal, errorDomain.rpc, detail);
      expect(error.message).to.equal(`internal error: ${detail}`);
      expect(readErrorMessage(encodeErrorPayload(error))).to.equal(error.message);
    }
  });

  it('has every field of the error struct, and nothing behind it', () => {
    const reader = new XdrReader(encodeErrorPayload(new RpcError(38, 7, 'détail', 111)));
    const text = (): string | null => reader.optional('text', () => reader.string('text', 99));
    expect([reader.int('code'), reader.int('domain'), text()]).to.eql([38, 7, 'détail']);
    expect([reader.int('level'), reader.int('dom')]).to.eql([2, 0]);
    expect([text(), text(), text()]).to.eql(['%s', 'détail', null]);
    expect([reader.int('int1'), reader.int('int2'), reader.int('net')]).to.eql([111, -1, 0]);
    expect(reader.left).to.equal(0);
  });

  it("reads no message where a peer's error has none", () => {
    expect(readErrorMessage(Buffer.from('000000260000000700000000', 'hex'))).to.equal('');
  });

  it('throws on an error struct cut short within its message', () => {
    const payload = errors.unknownProcedure.subarray(headerLength);
    const end = 4 + 4 + 4 + 4 + 'unknown procedure: 9999'.length + 1;
    expect(readErrorMessage(payload.subarray(0, end))).to.equal('unknown procedure: 9999');
    for (let at = 0; at < end; at++) {
      expect(() => readErrorMessage(payload.subarray(0, at)), `${at} bytes`).to.throw(XdrError);
    }
  });
});
