import type { CallHeader } from './frame.js';
import { errorCode, errorDomain, RpcError } from './rpc-error.js';

/**
 * What a server answers to calls that no program of it can serve; the texts are those of libvirt's
 * daemons.
 */
const rpc = (text: string): RpcError => new RpcError(errorCode.rpc, errorDomain.rpc, text);

export const undecodable = rpc('Unable to decode message payload');

export const unknownProgram = ({ program, version }: CallHeader): RpcError =>
  rpc(`Cannot find program ${program} version ${version ?? 0}`);

export const unknownProcedure = ({ procedure }: CallHeader): RpcError =>
  rpc(`unknown procedure: ${procedure}`);

export const unexpectedStatus = (status: number): RpcError =>
  rpc(`Unexpected message status ${status}`);
