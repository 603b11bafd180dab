import { SocketAddress } from 'node:net';
import { systemError } from './error.js';
import { libcFunction } from './library.js';

/**
 * What a socket is bound to. `path` is '' for a UNIX socket without a name, '@' and the name for an
 * abstract one.
 */
export type BoundAddress =
  | { readonly family: 'unix'; readonly path: string }
  | { readonly family: 'ipv4' | 'ipv6'; readonly address: string; readonly port: number };

const families = { unix: 1, ipv4: 2, ipv6: 10 } as const;
const solSocket = 1;
const soAcceptconn = 30;
/** sizeof(struct sockaddr_un), the largest of the three. */
const longestAddress = 110;

type AddressCall = (fd: number, address: Buffer, length: Buffer) => number;
const getsockname = libcFunction<AddressCall>(
  'int getsockname(int fd, void *address, void *length)',
);
const getsockopt = libcFunction<
  (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number
>('int getsockopt(int fd, int level, int option, void *value, void *length)');

/**
 * The address of the socket `fd`, or null when it is of another family than UNIX, IPv4 and IPv6.
 * @throws {NativeError} EBADF, ENOTSOCK
 */
export function boundAddress(fd: number): BoundAddress | null {
  const buffer = Buffer.alloc(longestAddress);
  const length = lengthOf(buffer);
  if (getsockname(fd, buffer, length) !== 0) throw systemError('getsockname', `descriptor ${fd}`);
  const address = buffer.subarray(0, length.readUInt32LE());
  switch (address.readUInt16LE(0)) {
    case families.unix:
      return { family: 'unix', path: pathOf(address.subarray(2)) };
    case families.ipv4:
      return { family: 'ipv4', address: address.subarray(4, 8).join('.'), port: portOf(address) };
    case families.ipv6:
      return { family: 'ipv6', address: ipv6Of(address.subarray(8, 24)), port: portOf(address) };
    default:
      return null;
  }
}

/**
 * Whether the socket `fd` waits for connections (SO_ACCEPTCONN); false for datagram sockets.
 * @throws {NativeError} EBADF, ENOTSOCK
 */
export function isListening(fd: number): boolean {
  const value = Buffer.alloc(4);
  if (getsockopt(fd, solSocket, soAcceptconn, value, lengthOf(value)) !== 0) {
    throw systemError('getsockopt(SO_ACCEPTCONN)', `descriptor ${fd}`);
  }
  return value.readInt32LE() !== 0;
}

function lengthOf(buffer: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(buffer.length);
  return length;
}

const portOf = (address: Buffer): number => address.readUInt16BE(2);

/** An abstract name begins with a NUL and may hold more of them; a path ends at its first one. */
function pathOf(name: Buffer): string {
  if (name.length > 0 && name[0] === 0) return `@${name.toString('utf8', 1)}`;
  const end = name.indexOf(0);
  return name.toString('utf8', 0, end < 0 ? name.length : end);
}

function ipv6Of(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index));
  const address = groups.map((group) => group.toString(16)).join(':');
  // In the shortest form, as administrators write it.
  return new SocketAddress({ address, family: 'ipv6' }).address;
}
