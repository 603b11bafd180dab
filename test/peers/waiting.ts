import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const pollIntervalMs = 10;

/**
 * Longest directory whose sockets, with a driver's folder and name, stay below sun_path's 107
 * bytes.
 */
const longestBase = 40;

export interface Wait {
  /** What is waited for, as it is to read in the error: `the daemon to answer`. */
  readonly what: string;
  /** Milliseconds until the wait is given up; 10 000 when left out. */
  readonly deadlineMs?: number;
}

/**
 * Asks `condition` every 10 ms until its answer is truthy, and returns that answer.
 * Rejects when the deadline passes first, and with whatever the condition itself throws.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  { what, deadlineMs = 10_000 }: Wait,
): Promise<NonNullable<T>> {
  const start = performance.now();
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (performance.now() - start > deadlineMs) {
      throw new Error(`Waited ${deadlineMs} ms in vain for ${what}.`);
    }
    await delay(pollIntervalMs);
  }
}

/** Makes a new directory with a path short enough for sockets, which every user may enter. */
export async function freshDirectory(): Promise<string> {
  const base = tmpdir().length <= longestBase ? tmpdir() : '/tmp';
  const directory = await mkdtemp(join(base, 'vp-'));
  await chmod(directory, 0o755);
  return directory;
}
