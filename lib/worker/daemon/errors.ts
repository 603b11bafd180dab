import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import type { DaemonFailure } from '../../control/worker-report.js';
import { errorText } from '../../error-text.js';
import { DescriptorError } from '../../rpc/descriptor-matcher.js';
import { FrameLengthError } from '../../rpc/framer.js';
import { errorCode, errorDomain, RpcError } from '../../rpc/rpc-error.js';
import { DaemonRefusal } from './conversation.js';
import type { Endpoint } from './directory.js';

/** The daemon's socket cannot be connected to. The text is the one libvirt's own daemons give. */
export class ConnectError extends RpcError {
  constructor(
    readonly daemon: string,
    readonly path: string,
    readonly reason: NodeJS.ErrnoException,
  ) {
    super(
      errorCode.system,
      errorDomain.rpc,
      `Failed to connect socket to '${path}': ${systemErrorText(reason)}`,
      Math.abs(reason.errno ?? -1),
    );
  }
}

/**
 * Why a daemon cannot be opened, for the log: the error's text and, where that is known, what can
 * be done.
 */
export function explain(error: unknown): string {
  const text = errorText(error);
  return error instanceof ConnectError ? `${text}${adviceOn(error)}` : text;
}

function adviceOn(error: ConnectError): string {
  switch (error.reason.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return `; start ${error.daemon}, or say under [routes] of virtproxyd-cluster.ini where its socket is`;
    case 'EACCES':
      return '; the user that virtproxyd runs as must be let in by the mode and group of that socket';
    case 'EAGAIN':
      return `; ${error.daemon} accepts nobody at the moment: see its max_clients and its log`;
    case 'EMFILE':
      return '; raise the limit of open files (LimitNOFILE=, ulimit -n)';
    default:
      return '';
  }
}

/** What the client is told of a daemon that cannot be opened because it does not answer. */
export class TimeoutError extends RpcError {
  constructor({ daemon, path }: Endpoint, seconds: number) {
    super(
      errorCode.system,
      errorDomain.rpc,
      `${daemon} at '${path}' did not answer within ${seconds} seconds`,
      constants.errno.ETIMEDOUT,
    );
  }
}

/** What kind of failure to open a daemon it is; null when the client gave up. */
export function failureOf(error: unknown): DaemonFailure | null {
  if (error instanceof ConnectError) return 'connect';
  if (error instanceof TimeoutError) return 'timeout';
  if (error instanceof LostError) return 'lost';
  return error instanceof DaemonRefusal || error instanceof RpcError ? 'refused' : null;
}

/**
 * What the client is told of calls whose daemon went away; `isUnsure` of one that may have changed
 * something.
 */
export class LostError extends RpcError {
  constructor({ daemon, path }: Endpoint, reason: string, isUnsure = false) {
    const effect = isUnsure ? '; it is not known whether the call took effect' : '';
    super(
      errorCode.system,
      errorDomain.rpc,
      `Lost connection to ${daemon} at '${path}': ${reason}${effect}`,
      constants.errno.EIO,
    );
  }
}

/**
 * Why a connection has ended, in the words of libvirt's own daemons; null stands for an end in
 * order.
 */
export const endReason = (error: Error | null): string =>
  error === null ? 'End of file while reading data' : systemErrorText(error);

/** Whether a connection ended because the daemon broke the rules of the wire. */
export const isBreach = (error: unknown): error is FrameLengthError | DescriptorError =>
  error instanceof FrameLengthError || error instanceof DescriptorError;

/**
 * Whether a daemon that is being restarted fails so: its socket is missing, refuses, or is closed
 * at once.
 */
export function isPassing(error: unknown): boolean {
  if (error instanceof LostError) return !(error instanceof BreachError);
  return error instanceof ConnectError && passingCodes.has(error.reason.code ?? '');
}

const passingCodes: ReadonlySet<string> = new Set([
  'ENOENT',
  'ECONNREFUSED',
  'ECONNRESET',
  'EAGAIN',
  'EPIPE',
]);

/** The same, when the daemon broke the rules of the wire: it would do so again. */
export class BreachError extends LostError {}

/** The system's error for a process that may open no more files. */
export function tooManyOpenFiles(): NodeJS.ErrnoException {
  const error: NodeJS.ErrnoException = new Error('too many open files');
  return Object.assign(error, { code: 'EMFILE', errno: -constants.errno.EMFILE });
}

/**
 * What the client is told of a daemon whose answer to the proxy's own calls is not what the
 * protocol says.
 */
export function unreadableError({ daemon, path }: Endpoint): RpcError {
  return new RpcError(
    errorCode.rpc,
    errorDomain.rpc,
    `${daemon} at '${path}' sent an answer that cannot be read`,
  );
}

/**
 * A system error's text as the C library prints it: node's own, beginning with a capital letter.
 */
function systemErrorText(error: NodeJS.ErrnoException): string {
  const text = error.errno === undefined ? undefined : getSystemErrorMap().get(error.errno)?.[1];
  return text === undefined ? error.message : text.charAt(0).toUpperCase() + text.slice(1);
}
