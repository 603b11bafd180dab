import { libcFunction } from './library.js';

// POLLERR | POLLHUP | POLLRDHUP
const left = 0x08 | 0x10 | 0x2000;
const pollRdHup = 0x2000;

const poll = libcFunction<(entries: Buffer, count: number, milliseconds: number) => number>(
  'int poll(void *entries, unsigned long count, int milliseconds)',
);

/** Whether the other end of the socket `fd` has closed, or will send no more, whatever still waits to be read. */
export function hasHungUp(fd: number): boolean {
  // struct pollfd: int fd; short events, revents
  const entry = Buffer.alloc(8);
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(pollRdHup, 4);
  return poll(entry, 1, 0) > 0 && (entry.readUInt16LE(6) & left) !== 0;
}
