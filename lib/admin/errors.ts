import { errorText } from '../error-text.js';
import { undecodable } from '../rpc/call-errors.js';
import { errorCode, errorDomain, RpcError } from '../rpc/rpc-error.js';
import { XdrError } from '../rpc/xdr-reader.js';
import { AdminError, type AdminFault } from './backend.js';
import { adminProcedure } from './messages.js';

/**
 * Errors as libvirtd 9.0.0 was seen to send them. Where something is looked up, the domain is that
 * of RPC, but in these procedures that of admin.
 */
const lookupsOfAdmin: ReadonlySet<number> = new Set([
  adminProcedure.serverSetThreadpoolParameters,
  adminProcedure.clientGetInfo,
  adminProcedure.serverSetClientLimits,
]);

const lookupDomain = (procedure: number): number =>
  lookupsOfAdmin.has(procedure) ? errorDomain.admin : errorDomain.rpc;

export const noServer = (name: string, procedure: number): RpcError =>
  new RpcError(errorCode.noServer, lookupDomain(procedure), `No server named '${shown(name)}'`);

export const noClient = (id: bigint, procedure: number): RpcError =>
  new RpcError(errorCode.noClient, lookupDomain(procedure), `No client with matching ID '${id}'`);

export const notOwner = (uid: number): RpcError =>
  new RpcError(
    errorCode.operationDenied,
    errorDomain.rpc,
    `this daemon is administered by the user it runs as alone, uid ${uid}`,
  );

export const unknownFlags = (flags: number): RpcError =>
  new RpcError(
    errorCode.invalidArgument,
    errorDomain.admin,
    `unsupported flags 0x${flags.toString(16)}: must be 0`,
  );

export const invalid = (sentence: string): RpcError =>
  new RpcError(errorCode.invalidArgument, errorDomain.none, sentence);

export const noPriorityWorkers = new RpcError(
  errorCode.operationUnsupported,
  errorDomain.none,
  'prioWorkers cannot be set: no worker is kept for urgent calls',
);

export const tooManyEntries = (count: number, most: number): RpcError =>
  new RpcError(errorCode.internal, errorDomain.rpc, `${count} clients, a reply holds ${most}`);

const faultCodes: Readonly<Record<AdminFault, number>> = {
  invalid: errorCode.invalidArgument,
  unsupported: errorCode.operationUnsupported,
  failed: errorCode.internal,
  system: errorCode.system,
};

const faultDomains: Readonly<Record<AdminFault, number>> = {
  invalid: errorDomain.none,
  unsupported: errorDomain.admin,
  failed: errorDomain.rpc,
  system: errorDomain.rpc,
};

/** What a call is answered with when it threw `error`. */
export function answerTo(error: unknown): RpcError {
  if (error instanceof RpcError) return error;
  if (error instanceof XdrError) return undecodable;
  if (error instanceof AdminError) {
    return new RpcError(faultCodes[error.code], faultDomains[error.code], error.message);
  }
  const reason = errorText(error);
  return new RpcError(errorCode.internal, errorDomain.admin, reason);
}

/** Characters of a peer's text in an error. */
const maxShown = 256;

const shown = (text: string): string =>
  text.length <= maxShown ? text : `${text.slice(0, maxShown)}…`;
