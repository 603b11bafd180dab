import { createRequire } from 'node:module';
import type koffiModule from 'koffi';

/**
 * A C function bound by koffi: called on this thread, or through `async` on one of libuv's pool.
 */
export type CFunction<F extends (...args: never[]) => unknown> = F & {
  async: (
    ...args: [...Parameters<F>, (error: Error | null, result: ReturnType<F>) => void]
  ) => void;
};

/** A pointer as koffi hands it over: an address, or null for NULL. */
export type Pointer = bigint | null;

// C run by koffi's async calls gets a stack of this size instead of the thread's own. The default
// of 128 KiB is too tight for what NSS, Kerberos and Berkeley DB put on theirs.
const asyncStackBytes = 1024 * 1024;

let loadedKoffi: typeof koffiModule | undefined;
let loadedLibc: ReturnType<typeof koffiModule.load> | undefined;

/**
 * koffi, loaded at the first call: its native module takes about 15 ms, importing this file none.
 */
export function koffi(): typeof koffiModule {
  if (!loadedKoffi) {
    loadedKoffi = createRequire(import.meta.url)('koffi') as typeof koffiModule;
    // Only accepted before the first library is loaded.
    loadedKoffi.config({ async_stack_size: asyncStackBytes });
  }
  return loadedKoffi;
}

/** The C library this process already runs on (glibc or musl), so its file name does not matter. */
export function libc(): ReturnType<typeof koffiModule.load> {
  return (loadedLibc ??= koffi().load(null));
}

/** Declares a function of the C library by its C prototype; it is bound at its first call. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- its type
export function libcFunction<F extends (...args: never[]) => unknown>(prototype: string): F {
  let bound: ((...args: unknown[]) => unknown) | undefined;
  const call = (...args: unknown[]): unknown => {
    bound ??= libc().func(prototype);
    return bound(...args);
  };
  return call as unknown as F;
}

const memcpy = libcFunction<(to: Buffer, from: bigint, length: number) => Pointer>(
  'void *memcpy(void *to, void *from, size_t length)',
);

/** Copies `length` bytes of C memory into a new Buffer. */
export function copyFromMemory(address: bigint, length: number): Buffer {
  const copy = Buffer.allocUnsafe(length);
  memcpy(copy, address, length);
  return copy;
}
