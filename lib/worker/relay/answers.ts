import { errorText } from '../../error-text.js';
import { unknownProcedure } from '../../rpc/call-errors.js';
import { encodeFrame, messageType, program, status, type CallHeader } from '../../rpc/frame.js';
import { procedureAt } from '../../rpc/procedures.js';
import { encodeErrorReply, errorCode, errorDomain, RpcError } from '../../rpc/rpc-error.js';
import { closeReason, encodeInt, procedure } from '../../rpc/session-messages.js';
import { DaemonRefusal } from '../daemon/conversation.js';

/** What the proxy itself answers to odd input; the texts are those of libvirt's own proxy. */
const internal = (text: string): RpcError =>
  new RpcError(errorCode.internal, errorDomain.rpc, text);
const rpc = (text: string): RpcError => new RpcError(errorCode.rpc, errorDomain.rpc, text);

export const notOpen = internal('hypervisor connection not open');
export const alreadyOpen = internal('connection already open');
/** What calls get once the hypervisor's daemon is gone. */
export const socketClosed = internal('client socket is closed');
export const authenticationRequired = rpc('authentication required');

/** The only answer to a failed login: why is for the log. */
export const authenticationFailed = new RpcError(
  errorCode.authenticationFailed,
  errorDomain.rpc,
  'authentication failed',
);
export const identityDenied = new RpcError(
  errorCode.accessDenied,
  errorDomain.rpc,
  'only root may act for another identity',
);
export const identityTooLate = new RpcError(
  errorCode.operationInvalid,
  errorDomain.rpc,
  'the identity must be set before a call that needs another daemon',
);
export const noDescriptors = new RpcError(
  errorCode.operationUnsupported,
  errorDomain.rpc,
  'fd passing is not supported by this connection',
);

/** An empty URI that leads nowhere. */
export const nothingToProbe = (probed: readonly string[]): RpcError =>
  new RpcError(
    errorCode.noConnection,
    errorDomain.rpc,
    `an empty URI: no daemon of ${probed.join(', ')} is listening`,
  );

/** A call before CONNECT_OPEN. */
export function notOpenFor(call: CallHeader): RpcError {
  const known = procedureAt(call.program, call.procedure) !== undefined;
  return known ? notOpen : unknownProcedure(call);
}

/** The reply that tells a client why its call failed; a daemon's own words where it gave some. */
export function encodeFailure(call: CallHeader, error: unknown): Buffer {
  if (error instanceof DaemonRefusal) {
    return encodeFrame({ ...call, type: messageType.reply, status: status.error }, error.payload);
  }
  if (error instanceof RpcError) return encodeErrorReply(call, error);
  return encodeErrorReply(call, internal(errorText(error)));
}

/**
 * Tells a client that asked for it that it has lost a daemon. libvirt's own proxy sends this event
 * with serial 1.
 */
export const connectionClosedEvent = encodeFrame(
  {
    program: program.remote,
    procedure: procedure.connectEventConnectionClosed,
    type: messageType.message,
    serial: 1,
    status: status.ok,
  },
  encodeInt(closeReason.eof),
);
