import { closeSync, openSync, writeSync } from 'node:fs';
import { systemError } from './error.js';
import { libcFunction } from './library.js';

const fSetfd = 2;
const fdCloexec = 1;
const fDupfdCloexec = 1030;
const fGetfl = 3;
const fSetfl = 4;
const oNonblock = 0o4000;
const fAddSeals = 1033;
const everySeal = 0x1 | 0x2 | 0x4 | 0x8; // F_SEAL_SEAL, SHRINK, GROW, WRITE
const mfdCloexec = 0x1;
const mfdAllowSealing = 0x2;
const rlimitNofile = 7;

const dup2 = libcFunction<(fd: number, target: number) => number>('int dup2(int fd, int target)');
const fcntl = libcFunction<(fd: number, command: number, type: 'int', value: number) => number>(
  'int fcntl(int fd, int command, ...)',
);
const memfdCreate = libcFunction<(name: string, flags: number) => number>(
  'int memfd_create(const char *name, unsigned int flags)',
);
const getrlimit = libcFunction<(resource: number, limit: Buffer) => number>(
  'int getrlimit(int resource, void *limit)',
);
const setrlimit = libcFunction<(resource: number, limit: Buffer) => number>(
  'int setrlimit(int resource, void *limit)',
);

/**
 * Another descriptor for what `fd` names, closed in programs started later.
 * @throws {NativeError} EBADF, EMFILE
 */
export function duplicate(fd: number): number {
  const copy = fcntl(fd, fDupfdCloexec, 'int', 0);
  if (copy === -1) throw systemError('fcntl(F_DUPFD_CLOEXEC)', `descriptor ${fd}`);
  return copy;
}

/**
 * Makes `target` another number for what `fd` names, closing what it named before. The copy is
 * inherited by programs started later.
 * @throws {NativeError} EBADF
 */
export function duplicateOnto(fd: number, target: number): void {
  if (dup2(fd, target) === -1) throw systemError('dup2', `descriptors ${fd} and ${target}`);
}

/**
 * Says whether `fd` closes when this process executes another program.
 * @throws {NativeError} EBADF
 */
export function setCloseOnExec(fd: number, on: boolean): void {
  if (fcntl(fd, fSetfd, 'int', on ? fdCloexec : 0) === -1) {
    throw systemError('fcntl(F_SETFD)', `descriptor ${fd}`);
  }
}

/**
 * Has calls fail with EAGAIN that would wait, in all processes that have what `fd` names.
 * @throws {NativeError} EBADF
 */
export function setNonBlocking(fd: number): void {
  const flags = fcntl(fd, fGetfl, 'int', 0);
  if (flags === -1 || fcntl(fd, fSetfl, 'int', flags | oNonblock) === -1) {
    throw systemError('fcntl(F_SETFL)', `descriptor ${fd}`);
  }
}

/**
 * A descriptor of an anonymous file in memory that holds `bytes` and can no longer change
 * (memfd_create and all seals): what journald accepts in place of a datagram that would be too
 * large.
 * @param name shown in /proc only
 * @throws {NativeError} EMFILE, ENOMEM
 */
export function sealedMemoryFile(name: string, bytes: Uint8Array): number {
  const fd = memfdCreate(name, mfdCloexec | mfdAllowSealing);
  if (fd === -1) throw systemError('memfd_create', name);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    if (fcntl(fd, fAddSeals, 'int', everySeal) === -1) {
      throw systemError('fcntl(F_ADD_SEALS)', `descriptor ${fd}`);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Closes descriptors that this process owns. */
export function closeDescriptors(descriptors: readonly number[]): void {
  for (const descriptor of descriptors) closeSync(descriptor);
}

/** How many descriptors this process may have open (getrlimit(2)); 2n ** 64n - 1n is unlimited. */
export interface OpenFilesLimit {
  readonly soft: bigint;
  readonly hard: bigint;
}

/** @throws {NativeError} never in practice */
export function openFilesLimit(): OpenFilesLimit {
  const limit = Buffer.alloc(16);
  if (getrlimit(rlimitNofile, limit) === -1) throw systemError('getrlimit', 'RLIMIT_NOFILE');
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) };
}

/**
 * Raises the soft limit to the hard one.
 * @returns the limits now
 * @throws {NativeError} EPERM
 */
export function raiseOpenFilesLimit(): OpenFilesLimit {
  const { soft, hard } = openFilesLimit();
  if (soft < hard) {
    const limit = Buffer.alloc(16);
    limit.writeBigUInt64LE(hard, 0);
    limit.writeBigUInt64LE(hard, 8);
    if (setrlimit(rlimitNofile, limit) === -1) throw systemError('setrlimit', 'RLIMIT_NOFILE');
  }
  return { soft: hard, hard };
}

let limit: number | null = null;

/**
 * Whether fewer than `reserve` descriptors can still be opened, as the number of the newest one
 * shows: the kernel gives the lowest that is free. At most a quarter of what the process may have
 * is reserved.
 */
export function isScarce(fd: number, reserve: number): boolean {
  limit ??= Number(openFilesLimit().soft);
  return fd + Math.min(reserve, limit / 4) >= limit;
}

/** The same, for what can be opened now. */
export function areScarce(reserve: number): boolean {
  let fd: number;
  try {
    fd = openSync('/dev/null', 'r');
  } catch {
    return true;
  }
  closeSync(fd);
  return isScarce(fd, reserve);
}
