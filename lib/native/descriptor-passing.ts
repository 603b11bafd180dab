import { closeSync } from 'node:fs';
import { errnoName, lastErrno, systemError } from './error.js';
import { koffi, libcFunction } from './library.js';

/** What one recvmsg(2) brought. `bytes` 0 means the peer has closed its end. */
export interface Received {
  readonly bytes: number;
  /** Closed on exec; the receiver owns them and has to close them. */
  readonly descriptors: number[];
  /**
   * There was no room for all descriptors that came along: none is left of them, and only bytes
   * have arrived.
   */
  readonly isTruncated: boolean;
}

const solSocket = 1;
const scmRights = 1;
const msgCtrunc = 0x8;
const msgDontwait = 0x40;
const msgNosignal = 0x4000;
const msgCmsgCloexec = 0x40000000;

/** The most descriptors Linux passes in one message (SCM_MAX_FD). */
export const maximumDescriptors = 253;

// struct cmsghdr: size_t cmsg_len (with this header); int cmsg_level, cmsg_type; then the data, all
// rounded up to 8 bytes. struct msghdr: name, name length, iovec, count, control, its length,
// flags.
const controlHeaderBytes = 16;
const controlBytes = controlHeaderBytes + (maximumDescriptors + 1) * 4;
const name = 0;
const nameLength = 8;
const vector = 16;
const vectorCount = 24;
const control = 32;
const controlLength = 40;
const flags = 48;

type MessageCall = (fd: number, message: Buffer, flags: number) => number;
const recvmsg = libcFunction<MessageCall>('long recvmsg(int fd, void *message, int flags)');
const sendmsg = libcFunction<MessageCall>('long sendmsg(int fd, void *message, int flags)');

// One set for all calls: each is filled, used and read before anything else runs.
const message = Buffer.alloc(56);
const vectorBuffer = Buffer.alloc(16);
const controlBuffer = Buffer.alloc(controlBytes);
let controlAddress = 0n;

function prepare(data: Uint8Array, offset: number, length: number, controlUsed: number): void {
  if (controlAddress === 0n) {
    controlAddress = koffi().address(controlBuffer);
    message.writeBigUInt64LE(koffi().address(vectorBuffer), vector);
    message.writeUInt32LE(1, vectorCount);
  }
  vectorBuffer.writeBigUInt64LE(length === 0 ? 0n : koffi().address(data) + BigInt(offset), 0);
  vectorBuffer.writeBigUInt64LE(BigInt(length), 8);
  message.writeBigUInt64LE(controlUsed === 0 ? 0n : controlAddress, control);
  message.writeBigUInt64LE(BigInt(controlUsed), controlLength);
  message.writeUInt32LE(0, flags);
}

/**
 * Reads what has arrived on the stream socket `fd`, with the descriptors sent along, without
 * waiting.
 * @param buffer receives up to `length` (at least 1) bytes at `offset`
 * @returns 'would-block' when nothing has arrived
 * @throws {NativeError} the errno of recvmsg(2)
 */
export function receive(
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
): Received | 'would-block' {
  if (offset < 0 || length < 1 || offset + length > buffer.length) {
    throw new RangeError(`${length} bytes at ${offset} are not within ${buffer.length}`);
  }
  prepare(buffer, offset, length, controlBytes);
  const bytes = recvmsg(fd, message, msgDontwait | msgCmsgCloexec);
  if (bytes < 0) return wouldBlock('recvmsg', fd);
  const descriptors = receivedDescriptors();
  const isTruncated = (message.readUInt32LE(flags) & msgCtrunc) !== 0;
  if (isTruncated) for (const descriptor of descriptors.splice(0)) closeSync(descriptor);
  return { bytes, descriptors, isTruncated };
}

function receivedDescriptors(): number[] {
  const found: number[] = [];
  const end = message.readUInt32LE(controlLength);
  let at = 0;
  while (at + controlHeaderBytes <= end) {
    const length = controlBuffer.readUInt32LE(at);
    if (length < controlHeaderBytes) break;
    if (
      controlBuffer.readInt32LE(at + 8) === solSocket &&
      controlBuffer.readInt32LE(at + 12) === scmRights
    ) {
      for (let next = at + controlHeaderBytes; next + 4 <= at + length; next += 4) {
        found.push(controlBuffer.readInt32LE(next));
      }
    }
    at += (length + 7) & ~7;
  }
  return found;
}

/**
 * Writes to the stream socket `fd` without waiting; the descriptors go with the first byte.
 * @param bytes at least one
 * @param descriptors at most 253; they stay open here
 * @returns how many bytes were taken (any number from 1; the descriptors are gone then), or
 *   'would-block' when none were
 * @throws {NativeError} the errno of sendmsg(2): EPIPE, ECONNRESET, EBADF, ETOOMANYREFS
 */
export function sendWithDescriptors(
  fd: number,
  bytes: Uint8Array,
  descriptors: readonly number[],
): number | 'would-block' {
  if (bytes.length === 0) throw new RangeError('descriptors travel with at least one byte');
  return sendMessage(fd, bytes, descriptors, null);
}

/** As {@link sendWithDescriptors}, for any socket, to `address` (a struct sockaddr) if not null. */
export function sendMessage(
  fd: number,
  bytes: Uint8Array,
  descriptors: readonly number[],
  address: Buffer | null,
): number | 'would-block' {
  if (descriptors.length > maximumDescriptors) {
    throw new RangeError(`${descriptors.length} descriptors do not fit into one message`);
  }
  let controlUsed = 0;
  if (descriptors.length > 0) {
    const length = controlHeaderBytes + descriptors.length * 4;
    controlUsed = (length + 7) & ~7;
    controlBuffer.writeBigUInt64LE(BigInt(length), 0);
    controlBuffer.writeInt32LE(solSocket, 8);
    controlBuffer.writeInt32LE(scmRights, 12);
    descriptors.forEach((each, index) =>
      controlBuffer.writeInt32LE(each, controlHeaderBytes + index * 4),
    );
  }
  prepare(bytes, 0, bytes.length, controlUsed);
  message.writeBigUInt64LE(address ? koffi().address(address) : 0n, name);
  message.writeUInt32LE(address?.length ?? 0, nameLength);
  const sent = sendmsg(fd, message, msgDontwait | msgNosignal);
  message.writeBigUInt64LE(0n, name);
  message.writeUInt32LE(0, nameLength);
  return sent < 0 ? wouldBlock('sendmsg', fd) : sent;
}

function wouldBlock(call: string, fd: number): 'would-block' {
  const errno = lastErrno();
  if (errnoName(errno) !== 'EAGAIN') throw systemError(call, `descriptor ${fd}`, errno);
  return 'would-block';
}
