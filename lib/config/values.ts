import { availableParallelism } from 'node:os';
import { isIP, isIPv4, isIPv6 } from 'node:net';
import { isAbsolute, resolve } from 'node:path';

/** A value that a key cannot have. The message continues a sentence that begins with the key. */
export class ValueError extends Error {
  override readonly name = 'ValueError';
}

/** The longest path that fits a UNIX socket address on Linux (unix(7)), in bytes. */
const SOCKET_PATH_MAX = 107;

/** In seconds: setTimeout ends at once when it is asked to wait longer than 2^31 ms. */
const SECONDS_MAX = 2_000_000;

const MIB = 1024 ** 2;

/** Any text but the empty one. */
export function text(value: string): string {
  if (value === '') throw new ValueError('must not be empty: remove the line to have the default');
  return value;
}

/** 2^31: int of C ends below it. */
const INT_END = 0x8000_0000;

const UINT_MAX = 0xffff_ffff;

/**
 * A file mode as C reads it: an octal int, of which the nine bits of permissions count. Gives it in
 * four digits, such as "0770".
 */
export function octalMode(value: string): string {
  const [, sign, digits] = /^\s*([-+]?)([0-7]+)$/.exec(value) ?? [];
  const number = parseInt(`${sign ?? ''}${digits ?? ''}`, 8);
  if (!(number >= -INT_END && number < INT_END)) {
    throw new ValueError(`must be an octal file mode such as "0770", not "${value}"`);
  }
  return (number & 0o777).toString(8).padStart(4, '0');
}

/** Says what a mode means that is not written with the digits of owner, group and others. */
export function oddMode(written: string, mode: string): string | null {
  return /^0*[0-7]{3}$/.test(written) ? null : `is "${written}", which means "${mode}"`;
}

/**
 * The number that a group is called by, as C reads it: decimal, with blanks or a sign before it; a
 * negative one counts down from 2^32. A plus before that rules a name out. Null for a text that is
 * no such number.
 */
export function groupNumber(value: string): number | null {
  const [, sign, digits] = /^\+?\s*([-+]?)([0-9]+)$/.exec(value) ?? [];
  const number = Number(digits ?? NaN);
  if (!(number <= UINT_MAX)) return null;
  return sign === '-' ? -number >>> 0 : number;
}

/** Says what group a negative number means. */
export function oddGroup(written: string): string | null {
  const number = groupNumber(written);
  if (number === UINT_MAX)
    return `is "${written}", which leaves the sockets the group of the daemon`;
  return number !== null && written.includes('-')
    ? `is "${written}", which means the group ${number}`
    : null;
}

/**
 * A user or group: a number from 0 to 2^32 - 2, or else a name; whether there is such a name shows
 * when it is looked up.
 */
export function account(value: string): string {
  if (/^[0-9]+$/.test(value) && Number(value) >= UINT_MAX) {
    throw new ValueError(`must be a name or a number below ${UINT_MAX}, not "${value}"`);
  }
  if (/[,:]/.test(value)) {
    throw new ValueError(`must be one name or number on each line, not "${value}"`);
  }
  return text(value);
}

/** An IP address, or a network as `ADDRESS/BITS`. */
export function addressRange(value: string): string {
  const [, address = '', bits] = /^([^/%]+)(?:\/([0-9]{1,3}))?$/.exec(value) ?? [];
  const most = isIPv4(address) ? 32 : isIPv6(address) ? 128 : -1;
  if (Number(bits ?? 0) > most) {
    throw new ValueError(
      `must be an IP address such as 192.0.2.7 or a network such as 192.0.2.0/24, not "${value}"`,
    );
  }
  return value;
}

/** An absolute path. */
export function absolutePath(value: string): string {
  if (!isAbsolute(value)) throw new ValueError(`must be an absolute path, not "${value}"`);
  return value;
}

/** An absolute path that can be the address of a UNIX socket. */
function socketPath(value: string): string {
  return withRoomFor('', value);
}

/** The path of a daemon's read-write socket; the read-only one beside it has a longer address. */
export function daemonSocket(value: string): string {
  return withRoomFor('-ro', value);
}

/**
 * A directory in which every socket of the proxy has a usable address; the empty text means `/`, as
 * in C.
 */
export function socketDirectory(value: string, directory: string): string {
  return withRoomFor('/libvirt-admin-sock', value === '' ? '/' : fromDirectory(value, directory));
}

/** Says which path a relative one means. */
export function relativePath(written: string, path: string): string | null {
  return isAbsolute(written) ? null : `is "${written}", which means "${path}"`;
}

/** A path that may be relative to `directory`; absolute ones stay as they are. */
export function fromDirectory(path: string, directory: string): string {
  return isAbsolute(path) ? path : resolve(directory, path);
}

function withRoomFor(suffix: string, path: string): string {
  const excess = Buffer.byteLength(absolutePath(path) + suffix) - SOCKET_PATH_MAX;
  if (excess > 0) throw new ValueError(`is ${excess} bytes too long for a UNIX socket's address`);
  return path;
}

/** An IP address or a host name. */
export function host(value: string): string {
  if (isIP(value) === 0 && !/^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$/.test(value)) {
    throw new ValueError(`must be an IP address or a host name, not "${value}"`);
  }
  return value;
}

/**
 * A port number or the name of a service; whether the service is known shows when the socket is
 * opened.
 */
export function port(value: string): string {
  const isNumber = /^[0-9]+$/.test(value) && Number(value) <= 65535;
  const isName = /^[A-Za-z0-9-]+$/.test(value) && /[A-Za-z]/.test(value);
  if (!isNumber && !isName) {
    throw new ValueError(`must be a port from 0 to 65535 or a service name, not "${value}"`);
  }
  return value;
}

/**
 * A UUID whose digits are not all the same. As with C, dashes and blanks may stand before any byte,
 * or be left out.
 */
export function uuid(value: string): string {
  const digits = value.replaceAll(/[-\s]/g, '').toLowerCase();
  if (!/^\s*([- ]*[0-9A-Fa-f]{2}){16}\s*$/.test(value)) {
    throw new ValueError(`must be a UUID such as uuidgen prints, not "${value}"`);
  }
  if (new Set(digits).size === 1) {
    throw new ValueError(`must be a real UUID, not "${value}" with one digit throughout`);
  }
  return value;
}

/** Whole or fractional seconds from `least` on. */
export function seconds(least: number): (value: string) => number {
  return (value) => {
    const time = /^[0-9]+(\.[0-9]+)?$/.test(value) ? Number(value) : NaN;
    if (!(time >= least && time <= SECONDS_MAX)) {
      throw new ValueError(`must be from ${least} to ${SECONDS_MAX} seconds, not "${value}"`);
    }
    return time;
  };
}

export function wholeNumber(least: number, most: number): (value: string) => number {
  return (value) => {
    const number = /^[0-9]+$/.test(value) ? Number(value) : NaN;
    if (number >= least && number <= most) return number;
    throw new ValueError(`must be a number from ${least} to ${most}, not "${value}"`);
  };
}

/** Bytes, with K, M or G for powers of 1024: 0, or 64M and more, which a worker needs to live. */
export function memoryLimit(value: string): number {
  const [, digits, suffix = ''] = /^([0-9]+)([KMG]?)$/i.exec(value) ?? [];
  const bytes = Number(digits ?? NaN) * 1024 ** ' KMG'.indexOf(suffix.toUpperCase() || ' ');
  if (!(bytes === 0 || (bytes >= 64 * MIB && Number.isSafeInteger(bytes)))) {
    throw new ValueError(`must be 0 or at least 64M (suffixes K, M and G), not "${value}"`);
  }
  return bytes;
}

/** As many worker processes as there may be. */
export const mostWorkers = 256;

/** The number of worker processes: 1 to 256, or `auto` for one a core but at most 4. */
export function workerCount(value: string): number {
  if (value === 'auto') return Math.min(availableParallelism(), 4);
  const count = /^[0-9]+$/.test(value) ? Number(value) : NaN;
  if (!(count >= 1 && count <= mostWorkers)) {
    throw new ValueError(`must be auto or a number from 1 to ${mostWorkers}, not "${value}"`);
  }
  return count;
}

/** `ADDRESS:PORT`, with an IPv6 address in brackets, or the absolute path of a UNIX socket. */
export function listenAddress(value: string): string {
  if (isAbsolute(value)) return socketPath(value);
  const place = hostAndPort(value);
  if (place === null || (value.startsWith('[') && !isIPv6(place.host))) {
    throw new ValueError(`must be ADDRESS:PORT or the absolute path of a socket, not "${value}"`);
  }
  host(place.host);
  port(String(place.port));
  return value;
}

/** The parts of `ADDRESS:PORT`; null for anything else. */
export function hostAndPort(value: string): { host: string; port: number } | null {
  const [, ipv6, other, number] = /^(?:\[(.+)\]|([^:[\]/]+)):([0-9]+)$/.exec(value) ?? [];
  const name = ipv6 ?? other;
  return name === undefined ? null : { host: name, port: Number(number) };
}

/** One of the given words. */
export function oneOf<const Word extends string>(words: readonly Word[]): (value: string) => Word {
  return (value) => {
    const found = words.find((word) => word === value);
    if (found === undefined) throw new ValueError(`must be ${words.join(' or ')}, not "${value}"`);
    return found;
  };
}

/** Some of the given words, with blanks between them. */
export function wordsOf<const Word extends string>(
  words: readonly Word[],
): (value: string) => readonly Word[] {
  return (value) => {
    const given = text(value).split(/\s+/);
    return given.map((each) => {
      const found = words.find((word) => word === each);
      if (found !== undefined) return found;
      throw new ValueError(`must be some of ${words.join(', ')}, not "${value}"`);
    });
  };
}
