import { libc } from './library.js';

const msgDontwait = 0x40;
const msgNosignal = 0x4000;

type Call = (fd: number, bytes: Uint8Array, length: number, flags: number) => number;
let send: Call | undefined;
let recv: Call | undefined;

// Bound here and not by libcFunction: both are called for every frame.

/**
 * Gives the bytes from `start` to `end` to the stream socket `fd`, as many as it takes without
 * waiting (send(2)).
 * @returns how many it took; -1 for none, and why is the errno of this thread
 */
export function sendNow(fd: number, bytes: Uint8Array, start: number, end: number): number {
  send ??= libc().func('long send(int fd, const void *bytes, size_t length, int flags)') as Call;
  const part = start === 0 ? bytes : bytes.subarray(start, end);
  return send(fd, part, end - start, msgDontwait | msgNosignal);
}

/**
 * Reads into `bytes` what has arrived on the stream socket `fd`, without waiting (recv(2)).
 * @returns how many; 0 at the end; -1 for none, and why is the errno of this thread
 */
export function receiveNow(fd: number, bytes: Uint8Array): number {
  recv ??= libc().func('long recv(int fd, void *bytes, size_t length, int flags)') as Call;
  return recv(fd, bytes, bytes.length, msgDontwait);
}
