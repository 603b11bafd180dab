import type { Configuration } from '../../config/configuration.js';

/**
 * Source: max_clients, max_anonymous_clients and max_queued_clients of virtproxyd.conf, and
 * login_timeout.
 */
export interface ClientLimits {
  readonly maxClients: number;
  /** 0: no limit. */
  readonly maxAnonymousClients: number;
  /** Accepted connections that may wait for a place. */
  readonly maxQueuedClients: number;
  /** Milliseconds that a client may take to log in. */
  readonly loginTimeout: number;
}

export function clientLimits({ conf, cluster }: Configuration): ClientLimits {
  return {
    maxClients: conf.max_clients,
    maxAnonymousClients: conf.max_anonymous_clients,
    maxQueuedClients: Math.max(conf.max_queued_clients, 1),
    loginTimeout: cluster.login_timeout * 1000,
  };
}
