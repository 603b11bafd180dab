import { readFile } from 'node:fs/promises';
import { libcFunction } from './library.js';

const dontNeed = 4;

const madvise = libcFunction<(address: bigint, bytes: number, advice: number) => number>(
  'int madvise(uintptr_t address, size_t bytes, int advice)',
);

/** A mapping of /proc/PID/smaps (proc(5)). */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: number;
}

/**
 * The mappings of a file in an smaps text that hold nothing but what the file has: not writable,
 * and never written to before they became so.
 */
export function unchangedMappings(smaps: string, file: string): Mapping[] {
  const found: Mapping[] = [];
  const mapping = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ +(\/.*)\n((?:[A-Z].*\n)*)/gm;
  for (const [, start, end, rights = '', path, lines = ''] of smaps.matchAll(mapping)) {
    if (path !== file || rights[1] !== '-' || !/^Anonymous: +0 kB$/m.test(lines)) continue;
    const address = BigInt(`0x${start}`);
    found.push({ address, bytes: Number(BigInt(`0x${end}`) - address) });
  }
  return found;
}

/**
 * Lets go of the pages of node's executable that this process has mapped (madvise(2)). They stay in
 * the kernel's page cache, from where the next access has them back. Those of libraries are a
 * hundredth of it and stay: another thread may be loading one, and relocate what was unchanged when
 * it was looked at.
 * @throws the system's error where /proc cannot be read
 */
export async function releaseProgramPages(): Promise<void> {
  const smaps = await readFile('/proc/self/smaps', 'latin1');
  const mappings = unchangedMappings(smaps, process.execPath);
  for (const { address, bytes } of mappings) madvise(address, bytes, dontNeed);
}

/** Milliseconds after which a process that has started does only what it will always do. */
const startsEnd = 2000;

/**
 * Lets go, once, of the pages that only the start has needed, about half of the executable's;
 * without a /proc all are kept.
 */
export function releaseAfterStart(): void {
  setTimeout(() => void releaseProgramPages().catch(() => undefined), startsEnd).unref();
}
