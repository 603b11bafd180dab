import {
  headerLength,
  keepalive,
  maxFrameLength,
  maxFrameLengthBeforeLogin,
  messageType,
  program,
  status,
  type FrameHeader,
} from '../../lib/rpc/frame.js';
import { procedures } from '../../lib/rpc/procedures.js';
import {
  encodeIdentityArguments,
  encodeInt,
  encodeOpenArguments,
  encodeString,
  feature,
  procedure,
} from '../../lib/rpc/session-messages.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { frameOf } from '../peers/frame-socket.js';
import { encodeSaslStart, encodeSaslStep } from '../peers/sasl-frames.js';
import type { Random } from './random.js';

/** Numbers at the edges of what some field of the protocol takes. */
export const edges = [
  0,
  1,
  2,
  3,
  4,
  5,
  7,
  20,
  21,
  24,
  27,
  28,
  32,
  33,
  65_536,
  65_537,
  maxFrameLengthBeforeLogin - 1,
  maxFrameLengthBeforeLogin,
  maxFrameLengthBeforeLogin + 1,
  4_194_304,
  4_194_305,
  maxFrameLength - 1,
  maxFrameLength,
  maxFrameLength + 1,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_fffc,
  0xffff_ffff,
] as const;

/** Lengths that end a connection at once, whoever announces them. */
const wrongLengths = [
  ...Array.from({ length: headerLength }, (_, length) => length),
  maxFrameLength + 1,
  0x8000_0000,
  0xffff_ffff,
] as const;

const ownProcedures = [
  procedure.connectOpen,
  procedure.connectSupportsFeature,
  procedure.connectSetIdentity,
  procedure.authList,
  procedure.authSaslInit,
  procedure.authSaslStart,
  procedure.authSaslStep,
  procedure.authPolkit,
];

const callable = procedures.filter(({ isEvent, route }) => !isEvent && route !== 'session');
const streaming = procedures.filter(({ opensStream }) => opensStream);
const events = procedures.filter(({ isEvent }) => isEvent);

/** Text with all that makes text difficult. */
function text(random: Random): string {
  return random.pick([
    '',
    'x',
    'qemu:///system',
    '%s%n%s',
    '\0',
    '../../../etc/passwd',
    '\u{1f4a9}',
    '__proto__',
    'constructor',
    'a'.repeat(random.below(300)),
  ]);
}

/** A URI to open; most lead to `driver`. */
function uri(random: Random, driver: string): string | null {
  if (random.chance(0.7)) return `${driver}:///system`;
  return random.pick([
    null,
    '',
    '::::',
    '/system',
    `${driver}+tcp://127.0.0.1:1/system`,
    `${driver}+unix:///system?socket=/dev/null`,
    'nosuch:///x',
    '__proto__:///system',
    'default:///system',
    `${driver}:///system?${text(random)}`,
    text(random),
  ]);
}

/** What calls carry, sometimes what this procedure's call should. */
export function payloadFor(random: Random, number: number, driver: string): Buffer {
  if (random.chance(0.15)) return spoilt(random, anyPayload(random));
  const payload = fittingPayload(random, number, driver);
  return random.chance(0.4) ? spoilt(random, payload) : payload;
}

function fittingPayload(random: Random, number: number, driver: string): Buffer {
  switch (number) {
    case procedure.connectOpen:
      return encodeOpenArguments({ name: uri(random, driver), flags: random.pick([0, 0, 1, 4]) });
    case procedure.connectSupportsFeature:
      return encodeInt(random.pick([...Object.values(feature), 0, 1, 99, -1]));
    case procedure.connectSetIdentity:
      return typedParameters(random);
    case procedure.authSaslStart:
      return encodeSaslStart(
        random.pick(['SCRAM-SHA-256', 'DIGEST-MD5', 'PLAIN', 'EXTERNAL', text(random)]),
        random.chance(0.3) ? null : random.bytes(random.below(100)),
      );
    case procedure.authSaslStep:
      return encodeSaslStep(random.chance(0.3) ? null : random.bytes(random.below(100)));
    default:
      return anyPayload(random);
  }
}

function anyPayload(random: Random): Buffer {
  return random.pick([
    () => Buffer.alloc(0),
    () => encodeInt(random.pick(edges) | 0),
    () => encodeString(text(random)),
    () => typedParameters(random),
    () => random.bytes(4 * random.below(200)),
    () => Buffer.alloc(4 * random.below(random.pick([2_000, 20_000, 150_000]))),
  ])();
}

function typedParameters(random: Random): Buffer {
  const count = random.pick([0, 1, 3, 20, 21]);
  const types = ['unsignedHyper', 'hyper', 'string', 'boolean', 'double'] as const;
  return encodeIdentityArguments(
    Array.from({ length: count }, () => {
      const field = random.pick(['user-name', 'unix-user-id', 'process-id', text(random)]);
      const type = random.pick(types);
      if (type === 'string') return { field, type, value: text(random) };
      if (type === 'boolean') return { field, type, value: random.chance(0.5) };
      if (type === 'double') return { field, type, value: NaN };
      return { field, type, value: BigInt(random.below(5000)) };
    }),
  );
}

/** Cut off, with lying counts and lengths, with bits turned over, or with parts twice. */
export function spoilt(random: Random, whole: Buffer): Buffer {
  let payload = Buffer.from(whole);
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(payload.length + 1);
    switch (random.below(4)) {
      case 0:
        payload = payload.subarray(0, at);
        break;
      case 1:
        if (payload.length >= 4) {
          const word = 4 * random.below(payload.length >> 2);
          payload.writeUInt32BE(random.pick(edges), word);
        }
        break;
      case 2:
        if (at < payload.length) payload[at] = payload[at]! ^ (1 << random.below(8));
        break;
      default:
        payload = Buffer.concat([payload, payload.subarray(at, at + 64)]);
    }
  }
  return payload;
}

/** A header as a client may send it, and sometimes as none may. */
function clientHeader(random: Random): FrameHeader {
  const plain = {
    program: program.remote as number,
    type: messageType.call as number,
    serial: 1 + random.below(30),
    status: status.ok as number,
  };
  switch (random.below(10)) {
    case 0:
    case 1:
    case 2:
      return { ...plain, procedure: random.pick(ownProcedures) };
    case 3:
      return { ...plain, procedure: random.pick(streaming).number };
    case 4:
      return {
        ...plain,
        procedure: random.pick(streaming).number,
        type: random.pick([messageType.stream, messageType.streamHole]),
        status: random.pick([status.continue, status.continue, status.ok, status.error]),
      };
    case 5:
      return {
        program: program.keepalive,
        procedure: random.pick([keepalive.ping, keepalive.ping, keepalive.pong, 3]),
        type: messageType.message,
        serial: 0,
        status: status.ok,
      };
    default: {
      const { program: number, number: called } = random.pick(callable);
      return { ...plain, program: number, procedure: called };
    }
  }
}

/** Puts another value into one field now and then; 0.25 stands for one frame in four. */
function odd(random: Random, header: FrameHeader, probability = 0.25): FrameHeader {
  if (!random.chance(probability)) return header;
  switch (random.below(6)) {
    case 0:
      return {
        ...header,
        program: random.pick([...Object.values(program), 0, 0x1234, 0xffff_ffff]),
      };
    case 1:
      return { ...header, version: random.pick([0, 2, 0xffff_ffff]) };
    case 2:
      return {
        ...header,
        procedure: random.pick([0, 9999, 0xffff_ffff, random.pick(events).number]),
      };
    case 3:
      return { ...header, type: random.pick([1, 2, 3, 4, 5, 6, 7, 0xffff_ffff]) };
    case 4:
      return { ...header, serial: random.pick([0, 1, 0xffff_ffff]) };
    default:
      return { ...header, status: random.pick([1, 2, 3, 0xffff_ffff]) };
  }
}

/** One frame of a client, whose OPENs lead to `driver`. Its length is right. */
export function clientFrame(random: Random, driver: string): Buffer {
  const header = odd(random, clientHeader(random));
  const payload =
    header.type === messageType.callWithFds
      ? encodeInt(random.pick([0, 33, 0xffff_ffff]) | 0)
      : payloadFor(random, header.procedure, driver);
  return frameOf(header, payload);
}

/** One frame of a daemon about a call of `header`, seldom as it should be. */
export function daemonFrame(random: Random, header: FrameHeader): Buffer {
  const type = random.pick([
    messageType.reply,
    messageType.reply,
    messageType.message,
    messageType.stream,
    messageType.streamHole,
    messageType.replyWithFds,
    7,
  ]);
  const isEvent = type === messageType.message;
  const frame: FrameHeader = {
    program: header.program,
    procedure: isEvent ? random.pick(events).number : header.procedure,
    type,
    serial: isEvent ? 0 : header.serial,
    status: random.pick([status.ok, status.ok, status.error, status.continue]),
  };
  const payload = random.chance(0.1) ? Buffer.alloc(300_000) : anyPayload(random);
  return frameOf(odd(random, frame, 0.4), type === 5 ? encodeInt(0) : spoilt(random, payload));
}

/** Where a frame begins that no peer may send: its length alone, or with a header behind it. */
export function wrongBeginning(random: Random): Buffer {
  const bytes = random.chance(0.5) ? Buffer.alloc(4) : frameOf({ procedure: 59, serial: 1 });
  bytes.writeUInt32BE(random.pick(wrongLengths), 0);
  return bytes;
}

/** Errors as daemons send them; also such as cannot be read. */
export function errorPayload(random: Random): Buffer {
  const writer = new XdrWriter();
  writer.int(1).int(7).bool(true).string(text(random)).int(2);
  return spoilt(random, writer.finish());
}

/**
 * What follows a break in the layer below, where nothing may follow: an OPEN that leads to a
 * daemon, and calls for one that is open already, all with `mark`, and so many that every length
 * below is made full.
 */
export function outcastFrames(mark: string): Buffer {
  const open = frameOf(
    { procedure: procedure.connectOpen, serial: 900 },
    encodeOpenArguments({ name: `${mark}:///system`, flags: 0 }),
  );
  const calls = Array.from({ length: 20 }, (_, number) =>
    frameOf({ procedure: callable[number]!.number, serial: 901 + number }, encodeString(mark)),
  );
  return Buffer.concat([open, ...calls]);
}
