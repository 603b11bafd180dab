import { systemError } from './error.js';
import { libcFunction } from './library.js';

const setNoNewPrivileges = 38; // PR_SET_NO_NEW_PRIVS

const prctl = libcFunction<
  (
    option: number,
    ...values: ['ulong', number, 'ulong', number, 'ulong', number, 'ulong', number]
  ) => number
>('int prctl(int option, ...)');
const capget = libcFunction<(header: Buffer, sets: Buffer) => number>(
  'int capget(void *header, void *sets)',
);
const capset = libcFunction<(header: Buffer, sets: Buffer) => number>(
  'int capset(void *header, void *sets)',
);

/** _LINUX_CAPABILITY_VERSION_3: sets of 64 bits, cut into two records. */
const capabilityVersion = 0x2008_0522;
/** Of struct __user_cap_header_struct: version, and pid, of which 0 is the calling thread. */
const headerBytes = 8;
/** Of struct __user_cap_data_struct: effective, permitted, inheritable. */
const recordBytes = 12;
const inheritableOffset = 8;

/** User and group for a process to start, as node takes them: numbers of 32 bits with a sign. */
export function spawnIds({ uid, gid }: SpawnIds): SpawnIds {
  return { uid: uid | 0, gid: gid | 0 };
}

interface SpawnIds {
  readonly uid: number;
  readonly gid: number;
}

/** Bits of the first record (capabilities(7)). */
const capabilities = { CAP_KILL: 5, CAP_SETGID: 6, CAP_SETUID: 7 } as const;
export type Capability = keyof typeof capabilities;

function capabilityHeader(): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(capabilityVersion);
  return header;
}

function capabilitySets(): Buffer {
  const sets = Buffer.alloc(2 * recordBytes);
  if (capget(capabilityHeader(), sets) !== 0) throw systemError('capget', 'this process');
  return sets;
}

/**
 * Those of `wanted` that are not in force for this process.
 * @throws {NativeError} never in practice
 */
export function lackingCapabilities(wanted: readonly Capability[]): Capability[] {
  const effective = capabilitySets().readUInt32LE(0);
  return wanted.filter((name) => (effective & (1 << capabilities[name])) === 0);
}

/**
 * From now on no program that this thread, node's main one, starts gets privileges by being
 * started: set-user-ID bits and capabilities of files count for nothing (no_new_privs, prctl(2)),
 * and the inheritable and ambient sets hand none on (capabilities(7)). What root may do, and what
 * it starts as root may do, stays. It cannot be undone.
 * @throws {NativeError} never in practice
 */
export function renounceNewPrivileges(): void {
  // The unused values must be there, as 0.
  if (prctl(setNoNewPrivileges, 'ulong', 1, 'ulong', 0, 'ulong', 0, 'ulong', 0) !== 0) {
    throw systemError('prctl', 'PR_SET_NO_NEW_PRIVS');
  }
  const sets = capabilitySets();
  sets.writeUInt32LE(0, inheritableOffset);
  sets.writeUInt32LE(0, recordBytes + inheritableOffset);
  if (capset(capabilityHeader(), sets) !== 0) throw systemError('capset', 'this process');
}
