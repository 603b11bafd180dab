import { systemError } from './error.js';
import { libcFunction } from './library.js';

/** An address of TCP's, in digits; a link-local one names its interface: `fe80::1%eth0`. */
export interface InternetAddress {
  readonly family: 'ipv4' | 'ipv6';
  readonly address: string;
  readonly port: number;
}

/**
 * What a socket is bound to. `path` is '' for a UNIX socket without a name, '@' and the name for an
 * abstract one.
 */
export type BoundAddress = { readonly family: 'unix'; readonly path: string } | InternetAddress;

const families = { unix: 1, ipv4: 2, ipv6: 10 } as const;
const solSocket = 1;
const soAcceptconn = 30;
/** sizeof(struct sockaddr_un), the largest of the three. */
const longestAddress = 110;
/** INET6_ADDRSTRLEN, a '%' and IF_NAMESIZE. */
const longestText = 46 + 1 + 16;
// NI_NUMERICHOST
const inDigits = 1;

type AddressCall = (fd: number, address: Buffer, length: Buffer) => number;
const getsockname = libcFunction<AddressCall>(
  'int getsockname(int fd, void *address, void *length)',
);
const getpeername = libcFunction<AddressCall>(
  'int getpeername(int fd, void *address, void *length)',
);
const getsockopt = libcFunction<
  (fd: number, level: number, option: number, value: Buffer, length: Buffer) => number
>('int getsockopt(int fd, int level, int option, void *value, void *length)');
const getnameinfo = libcFunction<
  (
    address: Buffer,
    length: number,
    host: Buffer,
    hostLength: number,
    service: null,
    serviceLength: number,
    flags: number,
  ) => number
>(
  'int getnameinfo(void *address, unsigned int length, void *host, unsigned int hostLength, void *service, unsigned int serviceLength, int flags)',
);

/**
 * The address of the socket `fd`, or null when it is of another family than UNIX, IPv4 and IPv6.
 * @throws {NativeError} EBADF, ENOTSOCK
 */
export function boundAddress(fd: number): BoundAddress | null {
  const address = addressBy(getsockname, 'getsockname', fd);
  if (address.readUInt16LE(0) !== families.unix) return internetAddress(address);
  return { family: 'unix', path: pathOf(address.subarray(2)) };
}

/**
 * Who is at the other end of the TCP socket `fd`; null when that is no TCP socket.
 * @throws {NativeError} ENOTCONN when it is gone; EBADF, ENOTSOCK
 */
export function peerAddress(fd: number): InternetAddress | null {
  return internetAddress(addressBy(getpeername, 'getpeername', fd));
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

function addressBy(call: AddressCall, name: string, fd: number): Buffer {
  const buffer = Buffer.alloc(longestAddress);
  const length = lengthOf(buffer);
  if (call(fd, buffer, length) !== 0) throw systemError(name, `descriptor ${fd}`);
  return buffer.subarray(0, length.readUInt32LE());
}

function lengthOf(buffer: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(buffer.length);
  return length;
}

/** Of struct sockaddr_in or sockaddr_in6, both of which have the port behind the family. */
function internetAddress(bytes: Buffer): InternetAddress | null {
  const number = bytes.readUInt16LE(0);
  if (number !== families.ipv4 && number !== families.ipv6) return null;
  const text = Buffer.alloc(longestText);
  const failure = getnameinfo(bytes, bytes.length, text, text.length, null, 0, inDigits);
  if (failure !== 0) throw systemError('getnameinfo', 'an address');
  return {
    family: number === families.ipv4 ? 'ipv4' : 'ipv6',
    address: text.toString('latin1', 0, text.indexOf(0)),
    port: bytes.readUInt16BE(2),
  };
}

/** An abstract name begins with a NUL and may hold more of them; a path ends at its first one. */
function pathOf(name: Buffer): string {
  if (name.length > 0 && name[0] === 0) return `@${name.toString('utf8', 1)}`;
  const end = name.indexOf(0);
  return name.toString('utf8', 0, end < 0 ? name.length : end);
}
