import { libc } from './library.js';

const msgDontwait = 0x40;
const msgNosignal = 0x4000;

let send: ((fd: number, bytes: Uint8Array, length: number, flags: number) => number) | undefined;

/**
 * Gives the bytes from `start` to `end` to the stream socket `fd`, as many as it takes without
 * waiting (send(2)).
 * @returns how many it took; 0 when it is full or broken, which of the two the next ordinary write
 * will tell
 */
export function sendNow(fd: number, bytes: Uint8Array, start: number, end: number): number {
  // Bound here and not by libcFunction: this is called for every frame.
  send ??= libc().func(
    'long send(int fd, const void *bytes, size_t length, int flags)',
  ) as NonNullable<typeof send>;
  const part = start === 0 ? bytes : bytes.subarray(start, end);
  return Math.max(send(fd, part, end - start, msgDontwait | msgNosignal), 0);
}
