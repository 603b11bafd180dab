import { errnoName, lastErrno, systemError } from './error.js';
import { libcFunction } from './library.js';

/** The process at the other end of a UNIX socket, as it was when it connected (unix(7)). */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

const solSocket = 1;
// asm-generic/socket.h; PowerPC numbers the first one differently.
const soPeercred = process.arch === 'ppc64' ? 21 : 17;
const soPeersec = 31;
const soPeergroups = 59;

const getsockopt = libcFunction<
  (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number
>('int getsockopt(int fd, int level, int option, void *value, void *length)');

function socketOption(fd: number, option: number, size: number): Buffer | number {
  const value = Buffer.alloc(size);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(size);
  if (getsockopt(fd, solSocket, option, value, length) !== 0) return lastErrno();
  return value.subarray(0, length.readUInt32LE());
}

/**
 * Who is at the other end of the UNIX socket `fd` (SO_PEERCRED).
 * @throws {NativeError} ENOTSOCK, EBADF
 */
export function peerCredentials(fd: number): PeerCredentials {
  const value = socketOption(fd, soPeercred, 12);
  if (typeof value === 'number') {
    throw systemError('getsockopt(SO_PEERCRED)', `descriptor ${fd}`, value);
  }
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/**
 * The security label (SELinux context, AppArmor profile) of the peer of the UNIX socket `fd`
 * (SO_PEERSEC), or null when the kernel runs no security module that labels sockets.
 * @throws {NativeError} ENOTSOCK, EBADF
 */
export function peerSecurityLabel(fd: number): string | null {
  for (let size = 256; ; size *= 4) {
    const value = socketOption(fd, soPeersec, size);
    if (typeof value !== 'number') {
      // SELinux counts the terminating NUL, AppArmor does not.
      return value.toString('utf8').replace(/\0+$/, '') || null;
    }
    const code = errnoName(value);
    if (code === 'ENOPROTOOPT') return null;
    if (code !== 'ERANGE' || size > 65536) {
      throw systemError('getsockopt(SO_PEERSEC)', `descriptor ${fd}`, value);
    }
  }
}

/**
 * The supplementary groups of the process at the other end of the UNIX socket `fd` when it
 * connected (SO_PEERGROUPS).
 * @throws {NativeError} ENOTSOCK, EBADF
 */
export function peerGroups(fd: number): readonly number[] {
  for (let size = 256; ; size *= 4) {
    const value = socketOption(fd, soPeergroups, size);
    if (typeof value !== 'number') {
      return Array.from({ length: value.length / 4 }, (_, index) => value.readUInt32LE(4 * index));
    }
    if (errnoName(value) !== 'ERANGE' || size > 4 * 65536) {
      throw systemError('getsockopt(SO_PEERGROUPS)', `descriptor ${fd}`, value);
    }
  }
}
