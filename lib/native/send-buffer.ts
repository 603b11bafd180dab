import { libcFunction } from './library.js';

const solSocket = 1;
const soSndbuf = 7;

const setsockopt = libcFunction<
  (fd: number, level: number, option: number, value: Buffer, length: number) => number
>('int setsockopt(int fd, int level, int option, void *value, unsigned int length)');
const getsockopt = libcFunction<
  (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number
>('int getsockopt(int fd, int level, int option, void *value, void *length)');

/**
 * Has the kernel queue at least `bytes` for the peer of the socket `fd`, in its own way of counting
 * (SO_SNDBUF, socket(7)), or as many as net.core.wmem_max lets it. Never makes it less; a socket
 * that is broken stays as it is.
 */
export function raiseSendBuffer(fd: number, bytes: number): void {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  if (getsockopt(fd, solSocket, soSndbuf, value, length) !== 0) return;
  if (value.readInt32LE() >= bytes) return;
  // The kernel doubles what it is told.
  value.writeInt32LE(Math.ceil(bytes / 2));
  setsockopt(fd, solSocket, soSndbuf, value, value.length);
}
