import { transports } from '../control/messages.js';
import {
  readTypedParameters,
  writeTypedParameters,
  type TypedParameter,
} from '../rpc/typed-parameters.js';
import type { XdrReader } from '../rpc/xdr-reader.js';
import { XdrWriter } from '../rpc/xdr-writer.js';
import type { AdminClient } from './backend.js';

/** Procedures of the admin program. Source: libvirt's published protocol definition 11.3.0. */
export const adminProcedure = {
  connectOpen: 1,
  connectClose: 2,
  connectGetLibVersion: 3,
  connectListServers: 4,
  connectLookupServer: 5,
  serverGetThreadpoolParameters: 6,
  serverSetThreadpoolParameters: 7,
  serverListClients: 8,
  serverLookupClient: 9,
  clientGetInfo: 10,
  clientClose: 11,
  serverGetClientLimits: 12,
  serverSetClientLimits: 13,
  connectGetLoggingOutputs: 14,
  connectGetLoggingFilters: 15,
  connectSetLoggingOutputs: 16,
  connectSetLoggingFilters: 17,
  serverUpdateTlsFiles: 18,
  connectSetDaemonTimeout: 19,
  connectDaemonShutdown: 20,
} as const;

/** Entries of a list that a client accepts. */
export const maxListEntries = 16_384;

const maxParameters = 32;

/** Longest string in bytes in the arguments read here; a frame has no room for a longer one. */
const maxStringLength = 256 * 1024;

/** A client as a caller names it; what else the caller says of it does not count. */
export interface ClientName {
  readonly server: string;
  readonly id: bigint;
}

export const readServerName = (reader: XdrReader): string =>
  reader.string('server', maxStringLength);

export function readClientName(reader: XdrReader): ClientName {
  const server = readServerName(reader);
  const id = reader.unsignedHyper('client.id');
  reader.hyper('client.timestamp');
  reader.unsigned('client.transport');
  return { server, id };
}

export const readParameters = (reader: XdrReader): TypedParameter[] =>
  readTypedParameters(reader, maxParameters);

export const readOptionalText = (reader: XdrReader, field: string): string | null =>
  reader.optional(field, () => reader.string(field, maxStringLength));

function writeClient(writer: XdrWriter, server: Buffer, client: AdminClient): void {
  writer
    .opaque(server)
    .unsignedHyper(BigInt(client.id))
    .hyper(BigInt(Math.floor(client.connectedAt / 1000)))
    .unsigned(transports.indexOf(client.transport));
}

export function encodeClient(server: string, client: AdminClient): Buffer {
  const writer = new XdrWriter();
  writeClient(writer, Buffer.from(server), client);
  return writer.finish();
}

/** An array and its length once more; without `entries` the length alone. */
function encodeList<T>(
  entries: readonly T[],
  wanted: boolean,
  write: (writer: XdrWriter, entry: T) => void,
): Buffer {
  const writer = new XdrWriter(1024);
  const written = wanted ? entries : [];
  writer.unsigned(written.length);
  for (const entry of written) write(writer, entry);
  return writer.unsigned(entries.length).finish();
}

export const encodeServerList = (names: readonly string[], wanted: boolean): Buffer =>
  encodeList(names, wanted, (writer, name) => writer.string(name));

export function encodeClientList(
  server: string,
  clients: readonly AdminClient[],
  wanted: boolean,
): Buffer {
  const name = Buffer.from(server);
  return encodeList(clients, wanted, (writer, client) => writeClient(writer, name, client));
}

export function encodeParameters(parameters: readonly TypedParameter[]): Buffer {
  const writer = new XdrWriter(256);
  writeTypedParameters(writer, parameters);
  return writer.finish();
}

export const encodeServer = (name: string): Buffer => new XdrWriter().string(name).finish();

/** `MAJOR.MINOR.PATCH` as libvirt's one number. */
export function encodeVersion(version: string): Buffer {
  const [major = 0, minor = 0, patch = 0] = version.split('.').map((part) => parseInt(part, 10));
  return new XdrWriter().unsignedHyper(BigInt(major * 1_000_000 + minor * 1000 + patch)).finish();
}

const countItems = (text: string): number => text.split(/\s+/).filter((item) => item !== '').length;

export const encodeLoggingOutputs = (text: string): Buffer =>
  new XdrWriter().string(text).unsigned(countItems(text)).finish();

export const encodeLoggingFilters = (text: string): Buffer => {
  const writer = new XdrWriter();
  writer.optional(text === '' ? null : text, (filters) => writer.string(filters));
  return writer.unsigned(countItems(text)).finish();
};
