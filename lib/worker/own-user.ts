import type { WorkerUser } from '../control/workers.js';

/**
 * Throws when this process is not quite `user`: where the kernel does not let groups be given up,
 * as in some user namespaces, libuv goes on with them all the same.
 */
export function assertRunsAs({ uid, gid }: WorkerUser): void {
  const groups = process.getgroups?.() ?? [];
  const own = `${process.getuid?.() ?? -1}:${process.getgid?.() ?? -1}`;
  if (own === `${uid}:${gid}` && groups.every((group) => group === gid)) return;
  throw new Error(
    `runs as ${own} with groups ${groups.join(' ')}, and worker_user is ${uid}:${gid}`,
  );
}
