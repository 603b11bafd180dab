import { closeSync } from 'node:fs';
import { unixAddress } from '../../lib/native/datagram.js';
import { systemError } from '../../lib/native/error.js';
import { libcFunction } from '../../lib/native/library.js';

const afUnix = 1;
const sockStream = 1;
const sockDgram = 2;
const sockCloexec = 0o2000000;

const socketpair = libcFunction<
  (domain: number, type: number, protocol: number, fds: Buffer) => number
>('int socketpair(int domain, int type, int protocol, void *fds)');
const socket = libcFunction<(domain: number, type: number, protocol: number) => number>(
  'int socket(int domain, int type, int protocol)',
);
const bind = libcFunction<(fd: number, address: Buffer, length: number) => number>(
  'int bind(int fd, void *address, unsigned int length)',
);

/** Two connected UNIX stream sockets; the caller closes them. */
export function socketPair(): [number, number] {
  const fds = Buffer.alloc(8);
  if (socketpair(afUnix, sockStream | sockCloexec, 0, fds) === -1) {
    throw systemError('socketpair', 'a test');
  }
  return [fds.readInt32LE(0), fds.readInt32LE(4)];
}

/** A UNIX datagram socket bound to `address`; the caller closes it. */
export function boundDatagramSocket(address: string): number {
  const fd = socket(afUnix, sockDgram | sockCloexec, 0);
  const sockaddr = unixAddress(address);
  if (bind(fd, sockaddr, sockaddr.length) === -1) {
    const error = systemError('bind', address);
    closeSync(fd);
    throw error;
  }
  return fd;
}
