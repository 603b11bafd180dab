import { access } from 'node:fs/promises';
import type { Configuration } from '../config/configuration.js';
import { secondaryDrivers, type SecondaryDriver } from '../rpc/procedures.js';

/** A daemon to connect to. */
export interface Endpoint {
  readonly driver: string;
  /** The daemon's name, for messages. */
  readonly daemon: string;
  readonly path: string;
}

/** Hypervisor drivers in the order in which an empty URI tries them. Source: libvirt's documentation of URIs. */
const probeOrder = {
  system: ['xen', 'qemu', 'lxc', 'vbox', 'bhyve', 'vz', 'ch'],
  session: ['qemu', 'vbox'],
} as const;

/**
 * Hypervisor drivers that leave networks, storage and the like to the secondary daemons. Others bring drivers of
 * their own for these, so all of their calls must go to their daemon.
 */
const driversWithSecondaries: ReadonlySet<string> = new Set([
  'xen',
  'qemu',
  'lxc',
  'bhyve',
  'vz',
  'ch',
]);

const isSecondary = (driver: string): driver is SecondaryDriver =>
  (secondaryDrivers as readonly string[]).includes(driver);

const exists = async (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Where the daemons of this host are: the standard places of the mode, unless `[routes]` says otherwise. */
export class DaemonDirectory {
  constructor(private readonly configuration: Pick<Configuration, 'mode' | 'routes' | 'paths'>) {}

  endpoint(driver: string, readOnly: boolean): Endpoint {
    const { mode, routes, paths } = this.configuration;
    const daemon = `virt${driver}d`;
    // The driver is a client's word: only what the file itself sets counts.
    const route = Object.hasOwn(routes, driver) ? routes[driver] : routes['default'];
    const path = route ?? `${paths.daemonDirectory}/${daemon}-sock`;
    return { driver, daemon, path: readOnly && mode === 'system' ? `${path}-ro` : path };
  }

  /** The secondary daemon for `route` beside the hypervisor driver's, or null when that daemon serves it itself. */
  secondary(hypervisor: string, route: SecondaryDriver, readOnly: boolean): Endpoint | null {
    const { routes } = this.configuration;
    if (!driversWithSecondaries.has(hypervisor)) return null;
    if (routes[route] === undefined && routes['default'] !== undefined) return null;
    return this.endpoint(route, readOnly);
  }

  /** The URI by which a secondary driver is opened beside a hypervisor. */
  secondaryUri(route: SecondaryDriver): string {
    return `${route}:///${this.configuration.mode}`;
  }

  /** Whether `driver` is a secondary one, which a client may open on its own. */
  isSecondary(driver: string): boolean {
    return isSecondary(driver);
  }

  /** The hypervisor driver for an empty URI: the first whose socket exists, or null. */
  async probe(readOnly: boolean): Promise<string | null> {
    for (const driver of probeOrder[this.configuration.mode]) {
      if (await exists(this.endpoint(driver, readOnly).path)) return driver;
    }
    return null;
  }

  /** The drivers that an empty URI tries. */
  get probed(): readonly string[] {
    return probeOrder[this.configuration.mode];
  }
}
