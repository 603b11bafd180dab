import type { DaemonSocket, Facts } from './facts.js';

/** What keeps the daemon from serving new clients, a sentence each; none when it is ready. */
export function missingParts(
  { isServing, workers }: Pick<Facts, 'isServing' | 'workers'>,
  sockets: readonly DaemonSocket[],
): string[] {
  const missing: string[] = [];
  if (!isServing)
    missing.push('no new clients are let in: the daemon starts, stops or was replaced');
  if (!workers.some(({ state }) => state === 'ready')) missing.push('no worker is ready');
  return [...missing, ...missingSockets(sockets)];
}

/** The daemons whose sockets should be there and are not: those that [routes] names, and one hypervisor's at least. */
export function missingSockets(sockets: readonly DaemonSocket[]): string[] {
  const missing = sockets
    .filter(({ isRouted, isThere }) => isRouted && !isThere)
    .map(({ daemon, path }) => `${daemon}: there is no socket '${path}'`);
  const hypervisors = sockets.filter(({ isHypervisor }) => isHypervisor);
  if (hypervisors.length > 0 && !hypervisors.some(({ isThere }) => isThere)) {
    missing.push('no daemon of a hypervisor is there');
  }
  return [...new Set(missing)];
}
