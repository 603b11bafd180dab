import { errnoName, systemError } from './error.js';
import { koffi, libcFunction } from './library.js';

// struct passwd: char *pw_name, *pw_passwd; uid_t pw_uid; gid_t pw_gid; char *pw_gecos, *pw_dir,
// *pw_shell. struct group: char *gr_name, *gr_passwd; gid_t gr_gid; char **gr_mem. The same in
// glibc and musl on 64-bit machines.
const recordBytes = 48;
const nameOffset = 0;
const idOffset = 16;

const firstBufferBytes = 1024;
const largestBufferBytes = 1024 * 1024;

type Lookup<Key> = (
  key: Key,
  record: Buffer,
  buffer: Buffer,
  size: number,
  result: Buffer,
) => number;

const getpwuid = libcFunction<Lookup<number>>(
  'int getpwuid_r(uint32_t uid, void *record, void *buffer, size_t size, void *result)',
);
const getgrgid = libcFunction<Lookup<number>>(
  'int getgrgid_r(uint32_t gid, void *record, void *buffer, size_t size, void *result)',
);
const getgrnam = libcFunction<Lookup<string>>(
  'int getgrnam_r(const char *name, void *record, void *buffer, size_t size, void *result)',
);

interface Account {
  readonly name: string;
  readonly id: number;
}

// POSIX leaves open how "no such entry" is told; getpwnam(3) lists these.
const meansNotFound = new Set(['ENOENT', 'ESRCH', 'EBADF', 'EPERM']);

function find<Key extends string | number>(
  call: string,
  lookup: Lookup<Key>,
  key: Key,
): Account | null {
  const record = Buffer.alloc(recordBytes);
  const result = Buffer.alloc(8);
  for (let size = firstBufferBytes; ; size *= 4) {
    const buffer = Buffer.alloc(size);
    const errno = lookup(key, record, buffer, size, result);
    if (errno === 0) {
      if (result.readBigUInt64LE() === 0n) return null;
      const start = Number(record.readBigUInt64LE(nameOffset) - koffi().address(buffer));
      const name = buffer.toString('utf8', start, buffer.indexOf(0, start));
      return { name, id: record.readUInt32LE(idOffset) };
    }
    const code = errnoName(errno);
    if (meansNotFound.has(code)) return null;
    if (code !== 'ERANGE' || size >= largestBufferBytes) throw systemError(call, `${key}`, errno);
  }
}

const cacheEntries = 256;
const cacheMilliseconds = 60_000;

/** Remembers the newest 256 answers, "not found" too, for a minute each. */
function cached(lookup: (id: number) => string | null): (id: number) => string | null {
  const answers = new Map<number, { name: string | null; until: number }>();
  return (id) => {
    const now = performance.now();
    const known = answers.get(id);
    if (known && known.until > now) return known.name;
    const name = lookup(id);
    answers.delete(id);
    answers.set(id, { name, until: now + cacheMilliseconds });
    if (answers.size > cacheEntries) {
      const oldest = answers.keys().next();
      if (!oldest.done) answers.delete(oldest.value);
    }
    return name;
  };
}

/**
 * The name of user `uid` in the system's account databases (NSS), or null when there is none. Blocks
 * while NSS asks, at most once a minute for a user.
 * @throws {NativeError} when a database cannot be read (EIO, EMFILE, …)
 */
export const userName = cached((uid) => find('getpwuid_r', getpwuid, uid)?.name ?? null);

/** The name of group `gid`; otherwise as {@link userName}. */
export const groupName = cached((gid) => find('getgrgid_r', getgrgid, gid)?.name ?? null);

/** The number of the group called `name`, or null when there is none; not cached. */
export function groupId(name: string): number | null {
  return find('getgrnam_r', getgrnam, name)?.id ?? null;
}
