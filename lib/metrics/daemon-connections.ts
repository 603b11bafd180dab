import type { Facts } from './facts.js';

/**
 * Connections to each daemon that was ever connected to: those that are open, or that are being
 * opened again, now.
 */
export function connections(
  { workers, totals }: Pick<Facts, 'workers' | 'totals'>,
  state: 'open' | 'reopening',
): ReadonlyMap<string, number> {
  const counts = new Map([...totals.daemons.keys()].map((daemon) => [daemon, 0]));
  for (const { gauges } of workers) {
    for (const report of gauges?.daemons ?? []) {
      counts.set(report.daemon, (counts.get(report.daemon) ?? 0) + report[state]);
    }
  }
  return counts;
}
