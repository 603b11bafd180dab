import { libcFunction } from './library.js';

// POLLERR | POLLHUP
const gone = 0x08 | 0x10;
const readHangUp = 0x2000;
const readable = 0x01;

/** Of struct pollfd: int fd; short events, revents. */
const entryLength = 8;

const poll = libcFunction<(entries: Buffer, count: number, milliseconds: number) => number>(
  'int poll(void *entries, unsigned long count, int milliseconds)',
);

/**
 * Whether the other end of the socket `fd` has closed, or will send no more, whatever still waits
 * to be read.
 */
export function hasHungUp(fd: number): boolean {
  return (eventsOf(fd) & (readHangUp | gone)) !== 0;
}

/**
 * Whether the connection is over both ways; a TCP peer that has closed is not known to be gone
 * before it says so again.
 */
export function isGone(fd: number): boolean {
  return (eventsOf(fd) & gone) !== 0;
}

/**
 * Which of the sockets have something to tell: bytes that wait to be read, or that the other end
 * will send no more. A negative number has nothing.
 */
export function withNews(fds: readonly number[]): boolean[] {
  const entries = Buffer.alloc(fds.length * entryLength);
  fds.forEach((fd, index) => {
    entries.writeInt32LE(fd, index * entryLength);
    entries.writeInt16LE(readHangUp | readable, index * entryLength + 4);
  });
  poll(entries, fds.length, 0);
  return fds.map((_, index) => entries.readUInt16LE(index * entryLength + 6) !== 0);
}

function eventsOf(fd: number): number {
  const entry = Buffer.alloc(entryLength);
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(readHangUp, 4);
  return poll(entry, 1, 0) > 0 ? entry.readUInt16LE(6) : 0;
}
