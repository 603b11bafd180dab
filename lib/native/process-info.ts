import { closeSync, openSync, readSync } from 'node:fs';
import { systemError } from './error.js';
import { libcFunction } from './library.js';

const setParentDeathSignal = 1;
const sigkill = 9;

const prctl = libcFunction<(option: number, type: 'ulong', value: number) => number>(
  'int prctl(int option, ...)',
);

/**
 * Has the kernel kill this process when its parent ends, even if it never comes back to its event
 * loop (prctl(2)).
 * @throws {NativeError} never in practice
 */
export function endWithParent(): void {
  if (prctl(setParentDeathSignal, 'ulong', sigkill) !== 0) throw systemError('prctl', 'PDEATHSIG');
}

/**
 * When process `pid` started, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)). With
 * the pid it names one process for good. Null when there is no such process.
 */
export function processStartTime(pid: number): bigint | null {
  try {
    return parseStartTime(readProcFile(`/proc/${pid}/stat`));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}

/** Longer than any /proc/PID/stat: 52 numbers and a name of at most 64 bytes. */
const procFile = Buffer.alloc(2048);

/**
 * The kernel gives such a file whole to one read; asking for its size first, as readFile does,
 * would cost more than that.
 */
function readProcFile(path: string): string {
  const fd = openSync(path, 'r');
  try {
    return procFile.toString('latin1', 0, readSync(fd, procFile));
  } finally {
    closeSync(fd);
  }
}

/** Digits of 2 ** 64, and what follows. */
const longestNumber = 21;

/** Field 22 of the text of a /proc/PID/stat; null when it has fewer fields. */
export function parseStartTime(stat: string): bigint | null {
  // Field 2, the command in parentheses, may itself hold spaces and parentheses: count from its
  // end.
  let start = stat.lastIndexOf(')') + 2;
  for (let field = 3; field < 22; field++) {
    const space = stat.indexOf(' ', start);
    if (space < 0) return null;
    start = space + 1;
  }
  const [field] = /^\d+(?!\S)/.exec(stat.slice(start, start + longestNumber)) ?? [];
  return field === undefined ? null : BigInt(field);
}
