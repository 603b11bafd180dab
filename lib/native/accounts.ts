import { constants } from 'node:os';
import { errnoName, systemError } from './error.js';
import { koffi, libcFunction } from './library.js';

// struct passwd: char *pw_name, *pw_passwd; uid_t pw_uid; gid_t pw_gid; char *pw_gecos, *pw_dir,
// *pw_shell. struct group: char *gr_name, *gr_passwd; gid_t gr_gid; char **gr_mem. The same in
// glibc and musl on 64-bit machines.
const recordBytes = 48;
const nameOffset = 0;
const idOffset = 16;
/** Of a passwd record alone. */
const gidOffset = 20;

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
const getpwnam = libcFunction<Lookup<string>>(
  'int getpwnam_r(const char *name, void *record, void *buffer, size_t size, void *result)',
);
const getgrnam = libcFunction<Lookup<string>>(
  'int getgrnam_r(const char *name, void *record, void *buffer, size_t size, void *result)',
);

const getgrouplist = libcFunction<
  (user: string, group: number, groups: Buffer, count: Buffer) => number
>('int getgrouplist(const char *user, uint32_t group, void *groups, void *count)');

/** A user or a group as the databases have it. */
export interface Account {
  readonly name: string;
  readonly id: number;
  /** A user's primary group; without meaning for a group. */
  readonly gid: number;
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
      const id = record.readUInt32LE(idOffset);
      return { name, id, gid: record.readUInt32LE(gidOffset) };
    }
    const code = errnoName(errno);
    if (meansNotFound.has(code)) return null;
    if (code !== 'ERANGE' || size >= largestBufferBytes) throw systemError(call, `${key}`, errno);
  }
}

/** The most that a process can belong to: NGROUPS_MAX of Linux. */
const mostGroups = 65_536;

const cacheEntries = 256;
const cacheMilliseconds = 60_000;

/** Remembers the newest 256 answers, "not found" too unless told otherwise, for a minute each. */
function cached<Key, Answer>(
  lookup: (key: Key) => Answer | null,
  remembersAbsence = true,
): (key: Key) => Answer | null {
  const answers = new Map<Key, { answer: Answer | null; until: number }>();
  return (key) => {
    const now = performance.now();
    const known = answers.get(key);
    if (known && known.until > now) return known.answer;
    const answer = lookup(key);
    answers.delete(key);
    if (answer === null && !remembersAbsence) return null;
    answers.set(key, { answer, until: now + cacheMilliseconds });
    if (answers.size > cacheEntries) {
      const oldest = answers.keys().next();
      if (!oldest.done) answers.delete(oldest.value);
    }
    return answer;
  };
}

/**
 * The name of user `uid` in the system's account databases (NSS), or null when there is none.
 * Blocks while NSS asks, at most once a minute for a user.
 * @throws {NativeError} when a database cannot be read (EIO, EMFILE, …)
 */
export const userName = cached((uid: number) => find('getpwuid_r', getpwuid, uid)?.name ?? null);

/** The name of group `gid`; otherwise as {@link userName}. */
export const groupName = cached((gid: number) => find('getgrgid_r', getgrgid, gid)?.name ?? null);

/**
 * The number of the user called `name`, or null when there is none. Blocks while NSS asks: for one
 * that there is at most once a minute, for one that there is not each time, since he may be added
 * at any moment.
 * @throws {NativeError} as {@link userName}
 */
export const userId = cached(
  (name: string) => find('getpwnam_r', getpwnam, name)?.id ?? null,
  false,
);

/**
 * The user with this number, if it is one, or else with this name; null when there is none. Blocks
 * while NSS asks, each time.
 * @throws {NativeError} as {@link userName}
 */
export function findUser(user: string): Account | null {
  return /^[0-9]+$/.test(user)
    ? find('getpwuid_r', getpwuid, Number(user))
    : find('getpwnam_r', getpwnam, user);
}

/** The number of the group called `name`; otherwise as {@link userId}. */
export const groupId = cached(
  (name: string) => find('getgrnam_r', getgrnam, name)?.id ?? null,
  false,
);

/**
 * The groups of user `uid` in the databases, his primary one among them; null when there is no such
 * user. Otherwise as {@link userId}.
 */
export const groupsOfUser = cached((uid: number): readonly number[] | null => {
  const user = find('getpwuid_r', getpwuid, uid);
  return user === null ? null : groupList(user);
}, false);

function groupList({ name, gid }: Account): readonly number[] {
  const count = Buffer.alloc(4);
  for (let room = 32; ;) {
    const groups = Buffer.alloc(4 * room);
    count.writeInt32LE(room);
    const fits = getgrouplist(name, gid, groups, count) >= 0;
    const found = count.readInt32LE();
    if (fits) return Array.from({ length: found }, (_, index) => groups.readUInt32LE(4 * index));
    // musl's says how many there are, and so does glibc's; neither says less than there was room
    // for.
    room = Math.max(found, 2 * room);
    if (room > mostGroups) throw systemError('getgrouplist', `user ${name}`, constants.errno.E2BIG);
  }
}
