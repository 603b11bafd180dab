import { XdrReader } from './xdr-reader.js';
import { XdrWriter } from './xdr-writer.js';
import {
  readTypedParameters,
  writeTypedParameters,
  type TypedParameter,
} from './typed-parameters.js';

/** Procedures of the remote program that the proxy itself takes part in. */
export const procedure = {
  connectOpen: 1,
  connectClose: 2,
  connectSupportsFeature: 60,
  authList: 66,
  authSaslInit: 67,
  authSaslStart: 68,
  authSaslStep: 69,
  authPolkit: 70,
  connectRegisterCloseCallback: 360,
  connectUnregisterCloseCallback: 361,
  connectEventConnectionClosed: 362,
  connectSetIdentity: 419,
} as const;

/** Ways to log in, as AUTH_LIST names them. */
export const authType = { none: 0, sasl: 1, polkit: 2 } as const;

/** Features that the server side itself provides, whatever the driver. */
export const feature = {
  fdPassing: 8,
  programKeepalive: 10,
  remoteEventCallback: 14,
  remoteCloseCallback: 15,
} as const;

/** Flag of CONNECT_OPEN: the connection may only read. */
export const openReadOnly = 1;

/** Why CONNECT_EVENT_CONNECTION_CLOSED was sent. */
export const closeReason = { error: 0, eof: 1, keepalive: 2, client: 3 } as const;

/** Longest string in bytes in the arguments read here. */
const maxStringLength = 4_194_304;

/** Longest data of one SASL step in bytes; each takes four on the wire. */
const maxSaslLength = 65_536;

const maxAuthTypes = 20;

const maxIdentityParameters = 20;

export interface OpenArguments {
  /** The URI; null when the client sent none. */
  readonly name: string | null;
  readonly flags: number;
}

/** Throws XdrError, as all readers here. */
export function readOpenArguments(payload: Buffer): OpenArguments {
  const reader = new XdrReader(payload);
  const name = reader.optional('name', () => reader.string('name', maxStringLength));
  return { name, flags: reader.unsigned('flags') };
}

export function encodeOpenArguments({ name, flags }: OpenArguments): Buffer {
  const writer = new XdrWriter();
  writer.optional(name, (present) => writer.string(present));
  return writer.unsigned(flags).finish();
}

export function readFeature(payload: Buffer): number {
  return new XdrReader(payload).int('feature');
}

export function encodeInt(value: number): Buffer {
  return new XdrWriter(4).int(value).finish();
}

export function encodeString(value: string): Buffer {
  return new XdrWriter().string(value).finish();
}

export function encodeAuthList(types: readonly number[]): Buffer {
  const writer = new XdrWriter(8).unsigned(types.length);
  for (const type of types) writer.int(type);
  return writer.finish();
}

export function readAuthList(payload: Buffer): number[] {
  const reader = new XdrReader(payload);
  const count = reader.count('types', maxAuthTypes, 4);
  return Array.from({ length: count }, () => reader.int('types'));
}

export function encodeIdentityArguments(identity: readonly TypedParameter[]): Buffer {
  const writer = new XdrWriter(512);
  writeTypedParameters(writer, identity);
  return writer.unsigned(0).finish();
}

export function readIdentityArguments(payload: Buffer): TypedParameter[] {
  return readTypedParameters(new XdrReader(payload), maxIdentityParameters);
}

/** A SASL step: `data` null is a NULL buffer, which SASL tells from an empty one. */
export interface SaslData {
  readonly data: Buffer | null;
}

export function readSaslStart(payload: Buffer): SaslData & { readonly mechanism: string } {
  const reader = new XdrReader(payload);
  return { mechanism: reader.string('mech', maxSaslLength), data: readSaslData(reader) };
}

export function readSaslStep(payload: Buffer): SaslData {
  return { data: readSaslData(new XdrReader(payload)) };
}

/** The data is no opaque but an array of chars, each an int of its own. */
function readSaslData(reader: XdrReader): Buffer | null {
  const isNull = reader.bool('nil');
  const length = reader.count('data', maxSaslLength, 4);
  const data = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; at++) data[at] = reader.int('data');
  return isNull ? null : data;
}

export function encodeSaslReply(complete: boolean, data: Buffer | null): Buffer {
  const length = data?.length ?? 0;
  const writer = new XdrWriter(12 + 4 * length);
  writer
    .bool(complete)
    .bool(data === null)
    .unsigned(length);
  for (const char of new Int8Array(data ?? [])) writer.int(char);
  return writer.finish();
}
