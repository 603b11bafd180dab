import { readFileSync } from 'node:fs';
import { residentBytes, runningProcesses } from '../peers/proxy.js';

/**
 * Clock ticks a second in /proc; the kernel's USER_HZ, the same on all of Debian's architectures.
 */
const ticksPerSecond = 100;

/** A process and all that descend from it. */
export function processTree(root: number): number[] {
  const all = runningProcesses();
  const tree = [root];
  for (const parent of tree) {
    tree.push(...all.filter((process) => process.parent === parent).map(({ pid }) => pid));
  }
  return tree;
}

/**
 * Seconds of CPU time that the processes used so far, in user and system mode. Source: proc(5),
 * stat.
 */
export function cpuSeconds(pids: readonly number[]): number {
  return sum(pids, (pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // From the state on, which is field 3: utime and stime are 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  });
}

/** Resident bytes of all together; what they share counts for each. */
export function memoryBytes(pids: readonly number[]): number {
  return sum(pids, residentBytes);
}

/** Milliseconds between looks at memory. */
const lookInterval = 20;

/** Does `work`; `most` is what `memoryBytes` rose to meanwhile, from before on. */
export async function withMostMemory<T>(
  pids: readonly number[],
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly most: number }> {
  let most = memoryBytes(pids);
  const look = setInterval(() => (most = Math.max(most, memoryBytes(pids))), lookInterval);
  try {
    const result = await work();
    return { result, most };
  } finally {
    clearInterval(look);
  }
}

function sum(pids: readonly number[], value: (pid: number) => number): number {
  return pids.reduce((total, pid) => total + value(pid), 0);
}
