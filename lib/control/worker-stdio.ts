/** The descriptors in a worker's stdio by which the primary reaches it. */
export const workerDescriptors = {
  /** The control channel, beside node's own. */
  control: 4,
  /** The passage of daemons' sockets. */
  daemons: 5,
  /** That of clients'. */
  clients: 6,
} as const;

/**
 * A worker's stdio: nothing to read or print, complaints to the primary, node's channel, the
 * control channel and the two passages. Node's channel, by which the cluster module knows its
 * workers, is closed when one drains.
 */
export const workerStdio = ['ignore', 'ignore', 'pipe', 'ipc', 'pipe', 'pipe', 'pipe'] as const;
