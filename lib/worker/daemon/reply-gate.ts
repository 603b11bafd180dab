import {
  keepalive,
  messageType,
  procedureOf,
  program,
  programOf,
  programVersion,
  serialOf,
  status,
  statusOf,
  typeOf,
  versionOf,
} from '../../rpc/frame.js';
import { isForwardedProgram, procedureAt } from '../../rpc/procedures.js';
import type { CallTable } from './call-table.js';

/**
 * A link to the hypervisor's daemon may carry any call and any event, one to a secondary daemon
 * those of its driver.
 */
export type LinkRole = 'hypervisor' | 'secondary';

/** What of a link a frame's verdict depends on. */
export interface LinkSituation {
  readonly role: LinkRole;
  readonly driver: string;
  /** Calls that were forwarded and not answered. */
  readonly calls: Pick<CallTable, 'has'>;
  /** Streams that a call opened, or is about to, and nobody has ended. */
  readonly streams: Pick<CallTable, 'has'>;
  /** The connection is read so that no descriptor is lost. */
  readonly followsDescriptors: boolean;
}

/**
 * What becomes of a frame of a daemon: `reply`, `event` and `stream` go to the client; `end` does
 * too and is its stream's last; `ping` is answered; `drop` is for nobody; `refuse` is dropped
 * because a daemon has no business to send it; `break` ends the connection, since the descriptors
 * that come with it are lost.
 */
export type DaemonVerdict =
  | { readonly fate: 'reply' | 'event' | 'stream' | 'end' | 'ping' | 'drop' }
  | { readonly fate: 'refuse'; readonly what: string }
  | { readonly fate: 'break' };

/** Made once: verdicts on the way of most frames cost no memory. */
const reply = { fate: 'reply' } as const;
const event = { fate: 'event' } as const;
const stream = { fate: 'stream' } as const;
const end = { fate: 'end' } as const;
const ping = { fate: 'ping' } as const;
const drop = { fate: 'drop' } as const;
const broken = { fate: 'break' } as const;
const refuse = (what: string): DaemonVerdict => ({ fate: 'refuse', what });

/** Decides what becomes of a frame whose header lies in `bytes` from `start`. Changes nothing. */
export function judgeDaemonFrame(
  bytes: Buffer,
  start: number,
  situation: LinkSituation,
): DaemonVerdict {
  if (versionOf(bytes, start) !== programVersion) return refuse('a frame of an unknown version');
  const type = typeOf(bytes, start);
  switch (type) {
    case messageType.reply:
    case messageType.replyWithFds:
      if (type === messageType.replyWithFds && !situation.followsDescriptors) return broken;
      return isIn(situation.calls, bytes, start) ? reply : refuse('a reply to no call');
    case messageType.stream:
    case messageType.streamHole:
      if (!carriesStream(bytes, start, situation)) return refuse('a frame of no stream');
      return type === messageType.stream && statusOf(bytes, start) !== status.continue
        ? end
        : stream;
    case messageType.message:
      return judgeMessage(bytes, start, situation);
    default:
      return refuse(`a frame of type ${type}`);
  }
}

/**
 * Whether a stream frame, from either side, belongs to a stream that is open there. What a newer
 * libvirt's procedures open nobody knows: their frames are the hypervisor's, as the calls are.
 */
export function carriesStream(
  bytes: Buffer,
  start: number,
  { role, streams }: Pick<LinkSituation, 'role' | 'streams'>,
): boolean {
  const isKnown = procedureAt(programOf(bytes, start), procedureOf(bytes, start)) !== undefined;
  return isKnown ? isIn(streams, bytes, start) : role === 'hypervisor';
}

function judgeMessage(
  bytes: Buffer,
  start: number,
  { role, driver }: LinkSituation,
): DaemonVerdict {
  const programNumber = programOf(bytes, start);
  const number = procedureOf(bytes, start);
  if (programNumber === program.keepalive) return number === keepalive.ping ? ping : drop;
  const row = procedureAt(programNumber, number);
  if (row?.isEvent === false || !isForwardedProgram(programNumber)) {
    return refuse('an event that is none');
  }
  if (role === 'secondary' && row !== undefined && row.route !== driver) {
    return refuse("another driver's event");
  }
  return event;
}

const isIn = (table: Pick<CallTable, 'has'>, bytes: Buffer, start: number): boolean =>
  table.has(programOf(bytes, start), procedureOf(bytes, start), serialOf(bytes, start));
