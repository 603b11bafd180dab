import { spawnSync } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import type { WorkerUser } from '../../control/workers.js';
import { spawnIds } from '../../native/privileges.js';

/** `r` to read a file, `w` to connect to a socket, `x` to enter a directory or execute a file. */
export type AccessKind = 'r' | 'w' | 'x';

/** What somebody must be allowed to do. */
export interface Need {
  readonly kind: AccessKind;
  readonly path: string;
}

/** Says which of the needs that it is given, by their place, are not met. */
const script =
  'at=0; while [ $# -gt 0 ]; do [ "-$1" "$2" ] || echo $at; at=$((at + 1)); shift 2; done';

/**
 * Those of `needs` that are refused to processes of `user`, who belong to its one group. A process
 * of that user asks, so that lists of rights beside the mode and whatever else the kernel goes by
 * count as well. Throws when it cannot be started.
 */
export function refusedTo(user: WorkerUser, needs: readonly Need[]): Need[] {
  const args = needs.flatMap(({ kind, path }) => [kind, path]);
  const { error, status, stdout, stderr } = spawnSync('/bin/sh', ['-c', script, 'sh', ...args], {
    cwd: '/',
    env: {},
    encoding: 'utf8',
    ...spawnIds(user),
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`/bin/sh failed: ${stderr.trim()}`);
  const places = stdout.split('\n').filter((line) => line !== '');
  return places.flatMap((place) => needs[Number(place)] ?? []);
}

/**
 * What it takes to get at a file that there is: the directories on the way to it, those behind
 * symbolic links too, and the file itself.
 */
export function needsFor(path: string, kind: AccessKind): Need[] {
  const places = [...new Set([path, realpathSync(path)])];
  const directories = new Set(places.flatMap(directoriesAbove));
  return [
    ...[...directories].map((directory) => ({ kind: 'x' as const, path: directory })),
    { kind, path },
  ];
}

/** From the root downwards. */
function directoriesAbove(path: string): string[] {
  const above = dirname(path);
  return above === path ? [] : [...directoriesAbove(above), above];
}
