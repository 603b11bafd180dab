import { errnoName, lastErrno } from './error.js';
import { libcFunction } from './library.js';

// MSG_PEEK | MSG_DONTWAIT
const withoutTaking = 0x02 | 0x40;

const recv = libcFunction<(fd: number, into: Buffer, length: number, flags: number) => number>(
  'intptr_t recv(int fd, void *into, size_t length, int flags)',
);

const oneByte = Buffer.alloc(1);

/** Whether bytes wait to be read from the socket `fd`. */
export function hasUnread(fd: number): boolean {
  return (peek(fd, oneByte) ?? 0) > 0;
}

/**
 * Copies what waits to be read from the socket `fd` into `into` and leaves it there for whoever
 * reads. Gives the number of bytes: null when nothing has come yet, 0 when nothing will come any
 * more.
 */
export function peek(fd: number, into: Buffer): number | null {
  const length = recv(fd, into, into.length, withoutTaking);
  if (length >= 0) return length;
  return errnoName(lastErrno()) === 'EAGAIN' ? null : 0;
}
