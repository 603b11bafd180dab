import { undecodable, unexpectedStatus, unknownProgram } from '../../rpc/call-errors.js';
import {
  callOf,
  headerLength,
  isPing,
  messageType,
  procedureOf,
  program,
  programOf,
  programVersion,
  status,
  statusOf,
  typeOf,
  versionOf,
} from '../../rpc/frame.js';
import { collectLimit } from '../../rpc/framer.js';
import { isForwardedProgram, procedureAt } from '../../rpc/procedures.js';
import type { RpcError } from '../../rpc/rpc-error.js';
import { procedure } from '../../rpc/session-messages.js';
import { authenticationRequired, noDescriptors, notOpenFor } from '../relay/answers.js';

/** What of a session a frame's verdict depends on. */
export interface ClientSituation {
  /** Not logged in, logged in without a daemon, or with one that is open or being opened. */
  readonly phase: 'login' | 'unopened' | 'opened';
  /** A step of the login is under way. */
  readonly isLoginBusy: boolean;
  /**
   * That step is one of SASL: what comes before its answer may belong to no layer yet, or to none.
   */
  readonly isSaslStepping: boolean;
  /** Descriptors can be sent to the client. */
  readonly passesDescriptors: boolean;
  /** The client's stream is read so that no descriptor of its is lost. */
  readonly followsDescriptors: boolean;
  /** How many descriptors came with this frame. */
  readonly offeredDescriptors: number;
}

/**
 * What becomes of a frame of the client: `drop` nothing; `pong` it is answered with PONG; `login`
 * it is a step of the login; `own` the proxy itself looks at the call; `call` and `stream` it goes
 * to a daemon; `answer` with this error; `refuse` the login fails; `close` the connection ends.
 */
export type ClientVerdict =
  | { readonly fate: 'drop' | 'pong' | 'login' | 'own' | 'call' | 'stream' }
  | { readonly fate: 'answer'; readonly error: RpcError }
  | { readonly fate: 'refuse' | 'close'; readonly reason: string };

/** Made once: verdicts on the way of most frames cost no memory. */
const drop = { fate: 'drop' } as const;
const pong = { fate: 'pong' } as const;
const login = { fate: 'login' } as const;
const own = { fate: 'own' } as const;
const call = { fate: 'call' } as const;
const stream = { fate: 'stream' } as const;
const answer = (error: RpcError): ClientVerdict => ({ fate: 'answer', error });

/**
 * Decides what becomes of a frame, small or large, whose header lies in `bytes` from `start`; of a
 * small one all its `length` bytes lie there. Changes nothing.
 */
export function judgeClientFrame(
  bytes: Buffer,
  start: number,
  length: number,
  situation: ClientSituation,
): ClientVerdict {
  const { phase } = situation;
  if (phase === 'login' && situation.isSaslStepping) {
    return { fate: 'refuse', reason: 'sent more while a step of its SASL login was under way' };
  }
  const programNumber = programOf(bytes, start);
  if (programNumber === program.keepalive) return isPing(bytes, start) ? pong : drop;
  const type = typeOf(bytes, start);
  const isCall = type === messageType.call || type === messageType.callWithFds;
  if (!isCall && type !== messageType.stream && type !== messageType.streamHole) return drop;
  if (!isForwardedProgram(programNumber) || versionOf(bytes, start) !== programVersion) {
    return isCall ? answer(unknownProgram(callOf(bytes, start))) : drop;
  }
  if (!isCall) return phase === 'opened' ? stream : drop;
  if (statusOf(bytes, start) !== status.ok) {
    return answer(unexpectedStatus(statusOf(bytes, start)));
  }
  return phase === 'login'
    ? judgeBeforeLogin(bytes, start, situation)
    : judgeCall(bytes, start, length, situation);
}

/**
 * A stranger may do no more than log in, and ask for keepalive, which libvirt's clients do before
 * it.
 */
function judgeBeforeLogin(
  bytes: Buffer,
  start: number,
  { isLoginBusy }: ClientSituation,
): ClientVerdict {
  const isPlain = typeOf(bytes, start) === messageType.call;
  if (isPlain && isRemoteCall(bytes, start, procedure.connectSupportsFeature)) return own;
  if (!isPlain) {
    return { fate: 'refuse', reason: 'sent a call with descriptors before it had logged in' };
  }
  if (isLoginBusy) {
    return { fate: 'refuse', reason: 'sent a call while a step of its login was under way' };
  }
  return isLoginStep(bytes, start) ? login : answer(authenticationRequired);
}

function judgeCall(
  bytes: Buffer,
  start: number,
  length: number,
  situation: ClientSituation,
): ClientVerdict {
  const type = typeOf(bytes, start);
  const row = procedureAt(programOf(bytes, start), procedureOf(bytes, start));
  if (row?.isOwn === true) {
    if (length > collectLimit) return answer(undecodable);
    if (!isLoginStep(bytes, start)) return own;
    // One that is in already loses nothing by asking again in a way that is not offered.
    return situation.isLoginBusy || type !== messageType.call ? drop : login;
  }
  return judgeForwarding(bytes, start, length, situation);
}

/**
 * The verdict on a call that no answer of the proxy's own settles: it goes to a daemon, unless
 * there is none, or its descriptors have not come with it, which loses them and ends the
 * connection, or those of its reply cannot reach the client.
 */
export function judgeForwarding(
  bytes: Buffer,
  start: number,
  length: number,
  situation: ClientSituation,
): ClientVerdict {
  if (situation.phase === 'login') return answer(authenticationRequired);
  if (situation.phase === 'unopened') return answer(notOpenFor(callOf(bytes, start)));
  const isTheirs = typeOf(bytes, start) === messageType.callWithFds;
  if (isTheirs && !haveDescriptorsCome(bytes, start, length, situation)) {
    const reason = 'sent a call with descriptors without having been told that they can be passed';
    return { fate: 'close', reason };
  }
  const row = procedureAt(programOf(bytes, start), procedureOf(bytes, start));
  if (row?.descriptors !== 'reply' || situation.passesDescriptors) return call;
  return answer(noDescriptors);
}

/**
 * Whether as many came with a call as it announces; of a large call, whether they are looked for
 * from its first byte on.
 */
function haveDescriptorsCome(
  bytes: Buffer,
  start: number,
  length: number,
  { followsDescriptors, offeredDescriptors }: ClientSituation,
): boolean {
  if (length > collectLimit) return followsDescriptors;
  if (length < headerLength + 4) return false;
  return bytes.readUInt32BE(start + headerLength) === offeredDescriptors;
}

const isRemoteCall = (bytes: Buffer, start: number, number: number): boolean =>
  programOf(bytes, start) === program.remote && procedureOf(bytes, start) === number;

function isLoginStep(bytes: Buffer, start: number): boolean {
  const number = procedureOf(bytes, start);
  return (
    programOf(bytes, start) === program.remote &&
    number >= procedure.authList &&
    number <= procedure.authPolkit
  );
}
