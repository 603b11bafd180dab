import type { Configuration } from '../config/configuration.js';
import type { MetricsService } from '../metrics/metrics-service.js';
import { checkPrerequisites, type Prerequisites } from './host/prerequisites.js';
import { makeRunDirectory } from './host/run-directory.js';
import { planListeners } from './listeners/listener-plan.js';
import type { PrimaryParts } from './parts.js';

/**
 * What is ready for a configuration, beside the listeners, which keep what was prepared to
 * themselves.
 */
export interface Prepared extends Prerequisites {
  readonly metrics: MetricsService | null;
}

/**
 * Checks what a configuration needs, and opens its sockets. Rejects when something is missing;
 * nothing has changed then.
 */
export async function prepare(
  parts: PrimaryParts,
  configuration: Configuration,
): Promise<Prepared> {
  const { listeners } = parts.entrance;
  const prerequisites = await checkPrerequisites(configuration, parts.log);
  parts.broker.prepare(configuration);
  const metrics = await metricsFor(parts, configuration);
  makeRunDirectory(configuration);
  await listeners.prepare(await planListeners(configuration, listeners.activated));
  return { ...prerequisites, metrics };
}

/** Its program is loaded only where it is needed. */
async function metricsFor(
  { entrance, observation, log }: PrimaryParts,
  { metrics }: Configuration,
): Promise<MetricsService | null> {
  if (entrance.metrics !== null || metrics.listen === null) return entrance.metrics;
  const { MetricsService } = await import('../metrics/metrics-service.js');
  return new MetricsService(observation, log.for('daemon.metrics'));
}
