import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { koffi } from './library.js';

/**
 * A C library refused. `code` is the errno name ('ENOENT') for a system call, or the name a file of
 * this room documents (`SASL_…`); `call` is the C function.
 */
export class NativeError extends Error {
  override readonly name = 'NativeError';
  readonly code: string;
  readonly call: string;

  constructor(code: string, call: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.call = call;
  }
}

let names: Map<number, string> | undefined;

/** The name of an errno value: 'EAGAIN' for 11; 'E999' for one the system does not know. */
export function errnoName(errno: number): string {
  names ??= new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));
  // EWOULDBLOCK, EOPNOTSUPP: other names of the same number.
  if (errno === constants.errno.EAGAIN) return 'EAGAIN';
  if (errno === constants.errno.ENOTSUP) return 'ENOTSUP';
  return names.get(errno) ?? `E${errno}`;
}

/** The errno the last C call of this thread left. */
export function lastErrno(): number {
  return koffi().errno();
}

/**
 * The error of a C call that has just failed.
 * @param subject what it was about: 'descriptor 12', 'user 1000', a path
 * @param errno the value the call left or returned
 */
export function systemError(call: string, subject: string, errno = lastErrno()): NativeError {
  const code = errnoName(errno);
  const text = getSystemErrorMap().get(-errno)?.[1] ?? 'no text for this error';
  return new NativeError(code, call, `${call} failed for ${subject}: ${text} (${code})`);
}
