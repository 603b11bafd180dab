import type { Configuration } from '../config/configuration.js';
import type { ConfigProblem } from '../config/errors.js';
import { keyFault, placeOfKey } from '../config/key-fault.js';
import { mapPriority, TlsPriorityError } from './tls-priority.js';

/**
 * What there is to say about tls_priority while the TLS listener is on; nothing while it is off.
 */
export function inspectPriority(configuration: Configuration): {
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
} {
  const { listen_tls: isOn, tls_priority: priority } = configuration.conf;
  const warnings: string[] = [];
  if (!isOn || priority === null) return { problems: [], warnings };
  const place = placeOfKey(configuration, 'tls_priority') ?? 'tls_priority';
  try {
    mapPriority(priority, undefined, (token) => {
      warnings.push(`${place}: "${token}" takes away nothing, since no such name is known here.`);
    });
    return { problems: [], warnings };
  } catch (error) {
    if (!(error instanceof TlsPriorityError)) throw error;
    return { problems: keyFault(configuration, 'tls_priority', error.message).problems, warnings };
  }
}
