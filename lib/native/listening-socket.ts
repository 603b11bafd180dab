import { closeSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { constants } from 'node:os';
import { unixAddress } from './datagram.js';
import { lastErrno, systemError } from './error.js';
import { libcFunction } from './library.js';

const family = { unix: 1, ipv4: 2, ipv6: 10 } as const;
// SOCK_NONBLOCK | SOCK_CLOEXEC
const ours = 0o4000 | 0o2000000;
// SOCK_STREAM
const streamSocket = 1 | ours;
const option = {
  reuseAddress: { level: 1, name: 2 },
  reusePort: { level: 1, name: 15 },
  ipv6Only: { level: 41, name: 26 },
  keepAlive: { level: 1, name: 9 },
  noDelay: { level: 6, name: 1 },
} as const;
type SocketOption = keyof typeof option;
const pollIn = 1;

const socket = libcFunction<(domain: number, type: number, protocol: number) => number>(
  'int socket(int domain, int type, int protocol)',
);
const bind = libcFunction<(fd: number, address: Buffer, length: number) => number>(
  'int bind(int fd, void *address, unsigned int length)',
);
const listen = libcFunction<(fd: number, backlog: number) => number>(
  'int listen(int fd, int backlog)',
);
const setsockopt = libcFunction<
  (fd: number, level: number, name: number, value: Buffer, length: number) => number
>('int setsockopt(int fd, int level, int name, void *value, unsigned int length)');
const accept4 = libcFunction<(fd: number, address: null, length: null, flags: number) => number>(
  'int accept4(int fd, void *address, void *length, int flags)',
);
const poll = libcFunction<(entries: Buffer, count: number, milliseconds: number) => number>(
  'int poll(void *entries, unsigned long count, int milliseconds)',
);

/**
 * A listening UNIX socket bound to `path`. Node's own server would remove the path whenever it
 * closes, even though somebody else still listens on the same socket.
 * @throws {NativeError} EADDRINUSE, EACCES, ENOENT, ENAMETOOLONG, …
 */
export function listenOnPath(path: string, backlog: number): number {
  return open(family.unix, unixAddress(path), `'${path}'`, backlog, []);
}

/**
 * A listening TCP socket; IPv6 ones take no IPv4 connections. `besideOthers`: even where sockets
 * listen that `allowOthers`.
 * @throws {NativeError} EADDRINUSE, EADDRNOTAVAIL, EACCES, …
 */
export function listenOnAddress(
  address: string,
  port: number,
  backlog: number,
  { besideOthers = false } = {},
): number {
  const subject = `'${isIPv6(address) ? `[${address}]` : address}:${port}'`;
  const options: SocketOption[] = besideOthers ? ['reuseAddress', 'reusePort'] : ['reuseAddress'];
  return isIPv6(address)
    ? open(family.ipv6, ipv6Address(address, port), subject, backlog, [...options, 'ipv6Only'])
    : open(family.ipv4, ipv4Address(address, port), subject, backlog, options);
}

/**
 * Says whether another socket of this user may listen beside a TCP one, on an address that it
 * covers, if it wants that too (SO_REUSEPORT). To be on no longer than it takes to open that other
 * one: it would let a second daemon in as well.
 * @throws {NativeError} EBADF, ENOPROTOOPT
 */
export function allowOthers(fd: number, on: boolean): void {
  if (!setOption(fd, 'reusePort', on)) throw systemError('setsockopt', `descriptor ${fd}`);
}

/**
 * Sets how many connections may wait on a socket that listens already.
 * @throws {NativeError} EBADF, EOPNOTSUPP
 */
export function setBacklog(fd: number, backlog: number): void {
  if (listen(fd, backlog) !== 0) throw systemError('listen', `descriptor ${fd}`);
}

/**
 * Whether a connection waits to be accepted on a listening socket.
 * @throws {NativeError} ENOMEM
 */
export function hasWaiting(fd: number): boolean {
  // struct pollfd: int fd; short events, revents
  const entry = Buffer.alloc(8);
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(pollIn, 4);
  const ready = poll(entry, 1, 0);
  if (ready < 0) throw systemError('poll', `descriptor ${fd}`);
  return ready > 0;
}

/**
 * The next connection that waits on a listening socket that does not block; null when none does.
 * @throws {NativeError} EMFILE, ENFILE, ENOBUFS, ENOMEM: it still waits; ECONNABORTED and others
 *   of accept(2): one has left while it waited
 */
export function acceptNext(fd: number): number | null {
  const accepted = accept4(fd, null, null, ours);
  if (accepted >= 0) return accepted;
  const errno = lastErrno();
  if (errno === constants.errno.EAGAIN) return null;
  throw systemError('accept4', `descriptor ${fd}`, errno);
}

/** Has a TCP connection send at once what is written, and probe a peer that is silent for long. */
export function tuneConnection(fd: number): void {
  setOption(fd, 'noDelay', true);
  setOption(fd, 'keepAlive', true);
}

function open(
  domain: number,
  address: Buffer,
  subject: string,
  backlog: number,
  options: readonly SocketOption[],
): number {
  const fd = socket(domain, streamSocket, 0);
  if (fd < 0) throw systemError('socket', subject);
  const fail = (call: string): never => {
    const errno = lastErrno();
    closeSync(fd);
    throw systemError(call, subject, errno);
  };
  for (const key of options) if (!setOption(fd, key, true)) fail('setsockopt');
  if (bind(fd, address, address.length) !== 0) fail('bind');
  if (listen(fd, backlog) !== 0) fail('listen');
  return fd;
}

function setOption(fd: number, key: SocketOption, on: boolean): boolean {
  const { level, name } = option[key];
  const value = Buffer.alloc(4);
  value.writeInt32LE(on ? 1 : 0);
  return setsockopt(fd, level, name, value, value.length) === 0;
}

/** struct sockaddr_in */
function ipv4Address(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(family.ipv4, 0);
  bytes.writeUInt16BE(port, 2);
  address.split('.').forEach((part, index) => bytes.writeUInt8(Number(part), 4 + index));
  return bytes;
}

/** struct sockaddr_in6, without scope */
function ipv6Address(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt16LE(family.ipv6, 0);
  bytes.writeUInt16BE(port, 2);
  ipv6Groups(address).forEach((group, index) => bytes.writeUInt16BE(group, 8 + 2 * index));
  return bytes;
}

/** The eight 16-bit groups of an IPv6 address, which may end in a dotted IPv4 one. */
function ipv6Groups(address: string): number[] {
  const plain = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((n) => n.toString(16)).join(':'),
  );
  const [head = '', tail] = plain.split('::');
  const groups = (text: string): number[] =>
    text === '' ? [] : text.split(':').map((group) => parseInt(group, 16));
  if (tail === undefined) return groups(head);
  const [first, last] = [groups(head), groups(tail)];
  return [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last];
}
