import { closeSync } from 'node:fs';
import { unixAddress } from './datagram.js';
import { lastErrno, systemError } from './error.js';
import { libcFunction } from './library.js';

const afUnix = 1;
// SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC
const streamSocket = 1 | 0o4000 | 0o2000000;

const socket = libcFunction<(domain: number, type: number, protocol: number) => number>(
  'int socket(int domain, int type, int protocol)',
);
const connect = libcFunction<(fd: number, address: Buffer, length: number) => number>(
  'int connect(int fd, void *address, unsigned int length)',
);

/**
 * A UNIX socket that does not block, is closed on exec and not connected yet.
 * @throws {NativeError} EMFILE, ENFILE
 */
export function makeStreamSocket(): number {
  const fd = socket(afUnix, streamSocket, 0);
  if (fd < 0) throw systemError('socket', 'a stream socket');
  return fd;
}

/**
 * Connects to the stream socket at `path`, without waiting: unlike TCP's, a UNIX socket is
 * connected at once or not at all (unix(7)).
 * @returns a descriptor that does not block and is closed on exec; the caller has to close it
 * @throws {NativeError} EAGAIN when nobody accepts and the queue is full; ENOENT, ECONNREFUSED,
 *   EACCES, EMFILE, ENAMETOOLONG, …
 */
export function connectToPath(path: string): number {
  const address = unixAddress(path);
  const fd = makeStreamSocket();
  if (connect(fd, address, address.length) === 0) return fd;
  const errno = lastErrno();
  closeSync(fd);
  throw systemError('connect', `'${path}'`, errno);
}
