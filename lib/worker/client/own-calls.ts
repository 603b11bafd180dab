import { undecodable } from '../../rpc/call-errors.js';
import { encodeReply, type CallHeader } from '../../rpc/frame.js';
import { RpcError } from '../../rpc/rpc-error.js';
import {
  encodeInt,
  feature,
  procedure,
  readFeature,
  readIdentityArguments,
  readOpenArguments,
  type OpenArguments,
} from '../../rpc/session-messages.js';
import { XdrError } from '../../rpc/xdr-reader.js';
import { encodeFailure, identityDenied, identityTooLate } from '../relay/answers.js';
import type { ClientProfile } from './profile.js';

/** Features of the server side itself; all others are the driver's to answer. */
const ownFeatures: ReadonlySet<number> = new Set([
  feature.fdPassing,
  feature.programKeepalive,
  feature.remoteEventCallback,
  feature.remoteCloseCallback,
]);

/** The session whose calls these are. */
export interface OwnCallsSession {
  readonly profile: ClientProfile;
  /** Whether a daemon is open or being opened. */
  readonly isOpened: boolean;
  /** Whether another daemon than the hypervisor's has been told for whom it works. */
  readonly hasSecondaries: boolean;
  answer(frame: Buffer): void;
  /** Opens the daemon that the client's URI means, and answers the call. Throws RpcError. */
  open(call: CallHeader, opening: OpenArguments): void;
  close(reason: string): void;
  /** The client wants to be watched for signs of life. */
  watchKeepalive(): void;
  /** Has descriptors that the client sends looked for; false where none can come. */
  expectDescriptors(): boolean;
}

/**
 * Serves a call that is for the proxy itself, all but the login's. False when it is for the daemon,
 * too or after all. `payload` is read, not kept.
 */
export function serveOwnCall(session: OwnCallsSession, call: CallHeader, payload: Buffer): boolean {
  try {
    switch (call.procedure) {
      case procedure.connectOpen:
        session.open(call, readOpenArguments(payload));
        return true;
      case procedure.connectClose:
        session.answer(encodeReply(call));
        session.close('the client closed it');
        return true;
      case procedure.connectSupportsFeature:
        return answerFeature(session, call, readFeature(payload));
      case procedure.connectSetIdentity:
        assumeIdentity(session, payload);
        return false;
      default:
        return false;
    }
  } catch (error) {
    if (!(error instanceof XdrError) && !(error instanceof RpcError)) throw error;
    session.answer(encodeFailure(call, error instanceof XdrError ? undecodable : error));
    return true;
  }
}

function answerFeature(session: OwnCallsSession, call: CallHeader, number: number): boolean {
  if (number === feature.programKeepalive) session.watchKeepalive();
  else if (!session.isOpened || !ownFeatures.has(number)) return false;
  const isThere = number !== feature.fdPassing || session.expectDescriptors();
  session.answer(encodeReply(call, encodeInt(isThere ? 1 : 0)));
  return true;
}

/**
 * Root may speak for others, as a proxy in front of this one does; then it does so to every daemon.
 */
function assumeIdentity(session: OwnCallsSession, payload: Buffer): void {
  if (!session.profile.maySpeakForOthers) throw identityDenied;
  if (!session.isOpened) return;
  if (session.hasSecondaries) throw identityTooLate;
  session.profile.speakFor(readIdentityArguments(payload));
}
