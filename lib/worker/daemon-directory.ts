import { access } from 'node:fs/promises';
import type { Configuration } from '../config/configuration.js';
import type { ConnectionTarget } from './connection-uri.js';
import type { SecondaryDriver } from '../rpc/procedures.js';

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

/** The key of `[routes]` for all drivers that it does not name: a daemon that has several, and probes them itself. */
const anyDriver = 'default';

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
    // The driver is a client's word: only what the file itself sets counts.
    const own = Object.hasOwn(routes, driver) && driver !== anyDriver ? routes[driver] : undefined;
    const shared = own === undefined ? routes[anyDriver] : undefined;
    const daemon = shared === undefined ? `virt${driver}d` : 'libvirtd';
    const path = own ?? shared ?? `${paths.daemonDirectory}/${daemon}-sock`;
    return { driver, daemon, path: readOnly && mode === 'system' ? `${path}-ro` : path };
  }

  /** The secondary daemon for `route` beside the hypervisor driver's, or null when that daemon serves it itself. */
  secondary(hypervisor: string, route: SecondaryDriver, readOnly: boolean): Endpoint | null {
    const { routes } = this.configuration;
    if (!driversWithSecondaries.has(hypervisor)) return null;
    if (routes[route] === undefined && routes[anyDriver] !== undefined) return null;
    return this.endpoint(route, readOnly);
  }

  /** The URI by which a secondary driver is opened beside a hypervisor. */
  secondaryUri(route: SecondaryDriver): string {
    return `${route}:///${this.configuration.mode}`;
  }

  /**
   * What an empty URI opens: the first hypervisor whose socket exists, else what all drivers share, else the first whose
   * daemon `isInstalled`; null when there is none of these.
   */
  async probe(
    readOnly: boolean,
    isInstalled: (daemon: string) => boolean,
  ): Promise<ConnectionTarget | null> {
    const { mode, routes } = this.configuration;
    const target = (driver: string): ConnectionTarget => ({ driver, uri: `${driver}:///${mode}` });
    const isShared = routes[anyDriver] !== undefined;
    for (const driver of this.probed) {
      // That the shared socket exists does not tell which drivers are behind it.
      if (isShared && routes[driver] === undefined) continue;
      if (await exists(this.endpoint(driver, readOnly).path)) return target(driver);
    }
    if (isShared) return { driver: anyDriver, uri: '' };
    const startable = this.probed.find((driver) => isInstalled(`virt${driver}d`));
    return startable === undefined ? null : target(startable);
  }

  /** The drivers that an empty URI tries. */
  get probed(): readonly string[] {
    return probeOrder[this.configuration.mode];
  }
}
