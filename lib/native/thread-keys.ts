import { libcFunction } from './library.js';

const scThreadKeysMax = 74; // _SC_THREAD_KEYS_MAX of glibc and musl

const create = libcFunction<(key: Buffer, destructor: null) => number>(
  'int pthread_key_create(void *key, void *destructor)',
);
const remove = libcFunction<(key: number) => number>('int pthread_key_delete(unsigned int key)');
const sysconf = libcFunction<(name: number) => number>('long sysconf(int name)');

export interface ThreadKeys {
  readonly used: number;
  /** PTHREAD_KEYS_MAX: 1024 with glibc, 128 with musl. */
  readonly most: number;
}

/**
 * How many of the process's pthread keys are in use. A key is a number, given out from 0 on, and
 * the lowest that is free is taken for the count: too low by what lies beyond a gap, which the next
 * keys fill. Takes a few microseconds.
 */
export function threadKeys(): ThreadKeys {
  const most = sysconf(scThreadKeysMax);
  const key = Buffer.alloc(4);
  if (create(key, null) !== 0) return { used: most, most };
  const used = key.readUInt32LE();
  remove(used);
  return { used, most };
}
