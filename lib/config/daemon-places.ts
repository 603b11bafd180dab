import { access } from 'node:fs/promises';
import type { Configuration } from './configuration.js';
import { secondaryDrivers } from '../rpc/procedures.js';
import { ROUTES } from './cluster-keys.js';

/**
 * Hypervisor drivers in the order in which an empty URI tries them. Source: libvirt's documentation
 * of URIs.
 */
export const hypervisorDrivers = {
  system: ['xen', 'qemu', 'lxc', 'vbox', 'bhyve', 'vz', 'ch'],
  session: ['qemu', 'vbox'],
} as const;

/** All drivers that may have a daemon of their own in system mode. */
export const knownDrivers: readonly string[] = [...hypervisorDrivers.system, ...secondaryDrivers];

/** The daemon of a driver. */
export interface DaemonPlace {
  readonly daemon: string;
  /** Its read-write socket. */
  readonly path: string;
}

/** What decides where daemons are. */
export type PlacesConfiguration = Pick<Configuration, 'mode' | 'routes' | 'paths'>;

/**
 * Whether a driver, which may be a client's word, can have a daemon on this host: it is one that
 * libvirt has a daemon for, or `[routes]` says where it is.
 */
export function isConfigured({ routes }: PlacesConfiguration, driver: string): boolean {
  return (
    knownDrivers.includes(driver) ||
    Object.hasOwn(routes, driver) ||
    routes[ROUTES.default] !== undefined
  );
}

/** Whether there is a file at the path, such as a daemon's socket. */
export function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** The socket of a driver's daemon. In session mode daemons have no read-only ones. */
export function socketPath(
  configuration: PlacesConfiguration,
  driver: string,
  readOnly: boolean,
): string {
  const { path } = daemonPlace(configuration, driver);
  return readOnly && configuration.mode === 'system' ? `${path}-ro` : path;
}

/**
 * Where the daemon of a driver is: the standard place of the mode, unless `[routes]` says
 * otherwise. The driver may be a client's word: of `[routes]` only what the file itself sets
 * counts.
 */
export function daemonPlace({ routes, paths }: PlacesConfiguration, driver: string): DaemonPlace {
  const own =
    Object.hasOwn(routes, driver) && driver !== ROUTES.default ? routes[driver] : undefined;
  const shared = own === undefined ? routes[ROUTES.default] : undefined;
  const daemon = shared === undefined ? `virt${driver}d` : 'libvirtd';
  return { daemon, path: own ?? shared ?? `${paths.daemonDirectory}/${daemon}-sock` };
}
