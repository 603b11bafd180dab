import { encodeFrame, messageType, status, type CallHeader } from './frame.js';
import { XdrReader } from './xdr-reader.js';
import { XdrWriter } from './xdr-writer.js';

/** libvirt's error codes that the proxy itself reports. */
export const errorCode = {
  internal: 1,
  noSupport: 3,
  noConnection: 5,
  invalidArgument: 8,
  operationDenied: 29,
  system: 38,
  rpc: 39,
  authenticationFailed: 45,
  operationInvalid: 55,
  operationUnsupported: 84,
  accessDenied: 88,
  noServer: 95,
  noClient: 96,
} as const;

/** libvirt's error domains: the part of libvirt that speaks. */
export const errorDomain = {
  none: 0,
  rpc: 7,
  remote: 13,
  uri: 45,
  admin: 62,
} as const;

/** What libvirt puts before the detail for a code; `%s` stands for the detail. */
const sentences: Readonly<Record<number, string>> = {
  [errorCode.internal]: 'internal error: %s',
  [errorCode.noSupport]: 'this function is not supported by the connection driver: %s',
  [errorCode.noConnection]: 'no connection driver available for %s',
  [errorCode.invalidArgument]: 'invalid argument: %s',
  [errorCode.operationDenied]: 'operation forbidden: %s',
  [errorCode.authenticationFailed]: 'authentication failed: %s',
  [errorCode.operationInvalid]: 'Requested operation is not valid: %s',
  [errorCode.operationUnsupported]: 'Operation not supported: %s',
  [errorCode.accessDenied]: 'access denied: %s',
  [errorCode.noServer]: 'Server not found: %s',
  [errorCode.noClient]: 'Client not found: %s',
};

const levelError = 2;
const maxTextLength = 4_194_304;

/**
 * An error as libvirt's clients understand it. `message` is the full sentence: the code's own
 * beginning, then the detail. `errno` is the system's error number for errors of the system, -1
 * otherwise.
 */
export class RpcError extends Error {
  constructor(
    readonly code: number,
    readonly domain: number,
    readonly detail: string,
    readonly errno = -1,
  ) {
    super(sentenceOf(code).replace('%s', () => detail));
  }
}

const sentenceOf = (code: number): string => sentences[code] ?? '%s';

/**
 * The error struct (PROTOCOL.md, "Errors"): what REPLY and STREAM frames with status ERROR carry.
 */
export function encodeErrorPayload(error: RpcError): Buffer {
  const writer = new XdrWriter(192);
  const text = (value: string | null): void => {
    writer.optional(value, (present) => writer.string(present));
  };
  writer.int(error.code).int(error.domain);
  text(error.message);
  writer.int(levelError).bool(false);
  text(sentenceOf(error.code));
  text(error.detail);
  text(null);
  writer.int(error.errno).int(-1).bool(false);
  return writer.finish();
}

/** The frame that answers a call with an error. */
export function encodeErrorReply(call: CallHeader, error: RpcError): Buffer {
  return encodeErrorFrame(call, messageType.reply, error);
}

/** The frame that aborts a stream with an error. */
export function encodeStreamAbort(stream: CallHeader, error: RpcError): Buffer {
  return encodeErrorFrame(stream, messageType.stream, error);
}

function encodeErrorFrame(call: CallHeader, type: number, error: RpcError): Buffer {
  return encodeFrame({ ...call, type, status: status.error }, encodeErrorPayload(error));
}

/** The message of an error struct that a peer sent, for a log line. Throws XdrError. */
export function readErrorMessage(payload: Buffer): string {
  const reader = new XdrReader(payload);
  reader.int('code');
  reader.int('domain');
  return reader.optional('message', () => reader.string('message', maxTextLength)) ?? '';
}
