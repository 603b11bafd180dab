import type { Environment } from './paths.js';

/**
 * What node, systemd and the starting command say to this program alone (node's cluster,
 * sd_listen_fds(3), sd_notify(3)), and its log, which C does not hand on to daemons it starts
 * either: they would write to the same file.
 */
const ours =
  /^(NODE_|LISTEN_(PID|FDS|FDNAMES)$|NOTIFY_SOCKET$|WATCHDOG_|VIRTPROXYD_|LIBVIRT_DEBUG$|LIBVIRT_LOG_)/;

/** The environment for programs that are not this one: hooks and driver daemons. */
export function childEnvironment(env: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && !ours.test(entry[0]),
    ),
  );
}
