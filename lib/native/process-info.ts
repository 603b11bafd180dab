import { readFileSync } from 'node:fs';
import { systemError } from './error.js';
import { libcFunction } from './library.js';

const setParentDeathSignal = 1;
const sigkill = 9;

const prctl = libcFunction<(option: number, type: 'ulong', value: number) => number>(
  'int prctl(int option, ...)',
);

/**
 * Has the kernel kill this process when its parent ends, even if it never comes back to its event loop (prctl(2)).
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
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
  return parseStartTime(stat);
}

/** Field 22 of the text of a /proc/PID/stat; null when it has fewer fields. */
export function parseStartTime(stat: string): bigint | null {
  // Field 2, the command in parentheses, may itself hold spaces and parentheses: count from its end.
  const afterCommand = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const field = afterCommand[22 - 3];
  return field !== undefined && /^\d+$/.test(field) ? BigInt(field) : null;
}
