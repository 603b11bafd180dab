import { connections } from './daemon-connections.js';
import type { DaemonSocket, Facts } from './facts.js';

/** What keeps the daemon from serving new clients, a sentence each; none when it is ready. */
export function missingParts(
  facts: Pick<Facts, 'isServing' | 'workers' | 'totals'>,
  sockets: readonly DaemonSocket[],
): string[] {
  const { isServing, workers } = facts;
  const missing: string[] = [];
  if (!isServing)
    missing.push('No new clients are let in: the daemon starts, stops or was replaced.');
  if (!workers.some(({ state }) => state === 'ready')) missing.push('No worker is ready.');
  return [...missing, ...missingSockets(sockets), ...awaitedDaemons(facts)];
}

/**
 * The daemons whose sockets should be there and are not: those that [routes] names, and one
 * hypervisor's at least.
 */
function missingSockets(sockets: readonly DaemonSocket[]): string[] {
  const missing = sockets
    .filter(({ isRouted, isThere }) => isRouted && !isThere)
    .map(({ daemon, path }) => `There is no socket '${path}' of ${daemon}.`);
  const hypervisors = sockets.filter(({ isHypervisor }) => isHypervisor);
  if (hypervisors.length > 0 && !hypervisors.some(({ isThere }) => isThere)) {
    missing.push('There is no daemon of a hypervisor, such as virtqemud.');
  }
  return [...new Set(missing)];
}

/** The daemons that went away and that clients wait for. */
function awaitedDaemons(facts: Pick<Facts, 'workers' | 'totals'>): string[] {
  return [...connections(facts, 'reopening')]
    .filter(([, count]) => count > 0)
    .map(([daemon, count]) => {
      const who = count === 1 ? 'one connection waits' : `${count} connections wait`;
      return `${daemon} went away: ${who} for its return.`;
    });
}
