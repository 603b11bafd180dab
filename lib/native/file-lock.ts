import { errnoName, lastErrno, systemError } from './error.js';
import { libcFunction } from './library.js';

const fSetlk = 6;
const fWrlck = 1;
const seekSet = 0;

// struct flock on 64-bit Linux: short l_type, l_whence; 4 bytes of padding; off_t l_start, l_len;
// pid_t l_pid; 4 bytes of padding.
const flockBytes = 32;

const fcntl = libcFunction<(fd: number, command: number, type: 'void *', lock: Buffer) => number>(
  'int fcntl(int fd, int command, ...)',
);

/**
 * Takes the write lock on the whole file behind `fd` (fcntl F_SETLK), as the C daemon does on its
 * PID file. The lock is this process's: it ends with the process, but also as soon as the process
 * closes ANY descriptor of that file, so open the file once and keep it open.
 * @returns false when another process holds it
 * @throws {NativeError} EBADF when `fd` is not open for writing, ENOLCK
 */
export function lockForLife(fd: number): boolean {
  const lock = Buffer.alloc(flockBytes);
  lock.writeInt16LE(fWrlck, 0);
  lock.writeInt16LE(seekSet, 2);
  if (fcntl(fd, fSetlk, 'void *', lock) === 0) return true;
  const errno = lastErrno();
  const code = errnoName(errno);
  if (code === 'EAGAIN' || code === 'EACCES') return false;
  throw systemError('fcntl(F_SETLK)', `descriptor ${fd}`, errno);
}
