/**
 * The fixed part of a libvirt RPC frame: numbers, limits and access to the header's fields in
 * place. Source: PROTOCOL.md beside this file, which has them from libvirt's published protocol
 * definition 11.3.0.
 */

export const program = {
  remote: 0x20008086,
  qemu: 0x20008087,
  lxc: 0x00068000,
  keepalive: 0x6b656570,
  admin: 0x06900690,
} as const;

export const messageType = {
  call: 0,
  reply: 1,
  message: 2,
  stream: 3,
  callWithFds: 4,
  replyWithFds: 5,
  streamHole: 6,
} as const;

export const status = { ok: 0, error: 1, continue: 2 } as const;

/** The one version every program has. */
export const programVersion = 1;

/** Bytes of length word and header together; no frame is shorter. */
export const headerLength = 28;

/** Longest frame in bytes, the length word included. */
export const maxFrameLength = 33_554_436;

/** Longest frame in bytes a client may send before it has logged in. */
export const maxFrameLengthBeforeLogin = 128 * 1024;

/** Most descriptors one frame may announce. */
export const maxDescriptors = 32;

const at = { program: 4, version: 8, procedure: 12, type: 16, serial: 20, status: 24 } as const;

/** Header fields, decoded. */
export interface FrameHeader {
  readonly program: number;
  /** `programVersion` where it is not given. */
  readonly version?: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly status: number;
}

/**
 * What an answer keeps of its call. libvirtd refuses a version it does not speak under that very
 * version.
 */
export type CallHeader = Pick<FrameHeader, 'program' | 'version' | 'procedure' | 'serial'>;

export const programOf = (bytes: Buffer, start: number): number =>
  bytes.readUInt32BE(start + at.program);
export const versionOf = (bytes: Buffer, start: number): number =>
  bytes.readUInt32BE(start + at.version);
export const procedureOf = (bytes: Buffer, start: number): number =>
  bytes.readUInt32BE(start + at.procedure);
export const typeOf = (bytes: Buffer, start: number): number => bytes.readUInt32BE(start + at.type);
export const serialOf = (bytes: Buffer, start: number): number =>
  bytes.readUInt32BE(start + at.serial);
export const statusOf = (bytes: Buffer, start: number): number =>
  bytes.readUInt32BE(start + at.status);

/** The call in a frame. */
export const callOf = (bytes: Buffer, start: number): CallHeader => ({
  program: programOf(bytes, start),
  version: versionOf(bytes, start),
  procedure: procedureOf(bytes, start),
  serial: serialOf(bytes, start),
});

/** Builds a whole frame; `payload` is XDR, already padded. */
export function encodeFrame(header: FrameHeader, payload?: Buffer): Buffer {
  return encode(header, header.type, header.status, payload);
}

/** The frame that answers a call. */
export function encodeReply(call: CallHeader, payload?: Buffer): Buffer {
  return encode(call, messageType.reply, status.ok, payload);
}

function encode(call: CallHeader, type: number, status: number, payload?: Buffer): Buffer {
  const length = headerLength + (payload?.length ?? 0);
  const frame = Buffer.allocUnsafe(length);
  frame.writeUInt32BE(length, 0);
  frame.writeUInt32BE(call.program, at.program);
  frame.writeUInt32BE(call.version ?? programVersion, at.version);
  frame.writeUInt32BE(call.procedure, at.procedure);
  frame.writeUInt32BE(type, at.type);
  frame.writeUInt32BE(call.serial, at.serial);
  frame.writeUInt32BE(status, at.status);
  payload?.copy(frame, headerLength);
  return frame;
}

/** A call frame of the remote program. */
export function encodeCall(procedure: number, serial: number, payload?: Buffer): Buffer {
  return encodeFrame(
    { program: program.remote, procedure, serial, type: messageType.call, status: status.ok },
    payload,
  );
}

/** Keepalive procedures: PING asks, PONG answers. Neither has a serial or a payload. */
export const keepalive = { ping: 1, pong: 2 } as const;

export const isPing = (bytes: Buffer, start: number): boolean =>
  programOf(bytes, start) === program.keepalive &&
  versionOf(bytes, start) === programVersion &&
  typeOf(bytes, start) === messageType.message &&
  procedureOf(bytes, start) === keepalive.ping;

export function encodeKeepalive(procedure: number): Buffer {
  return encodeFrame({
    program: program.keepalive,
    procedure,
    type: messageType.message,
    serial: 0,
    status: status.ok,
  });
}
