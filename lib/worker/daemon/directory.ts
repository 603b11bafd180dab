import { ROUTES } from '../../config/cluster-keys.js';
import {
  daemonPlace,
  hypervisorDrivers,
  knownDrivers,
  type DaemonPlace,
  socketPath,
  type PlacesConfiguration,
} from '../../config/daemon-places.js';
import type { ConnectionTarget } from './connection-uri.js';
import type { SecondaryDriver } from '../../rpc/procedures.js';

/** A daemon to connect to, by its read-write or its read-only socket. */
export interface Endpoint extends DaemonPlace {
  readonly driver: string;
  readonly readOnly: boolean;
}

/**
 * Hypervisor drivers that leave networks, storage and the like to the secondary daemons. Others
 * bring drivers of their own for these, so all of their calls must go to their daemon.
 */
const driversWithSecondaries: ReadonlySet<string> = new Set([
  'xen',
  'qemu',
  'lxc',
  'bhyve',
  'vz',
  'ch',
]);

/**
 * Stands for all drivers that `[routes]` does not name: a daemon that has several, and probes them
 * itself.
 */
const anyDriver = ROUTES.default;

/**
 * Where the daemons of this host are: the standard places of the mode, unless `[routes]` says
 * otherwise.
 */
export class DaemonDirectory {
  constructor(
    private readonly configuration: PlacesConfiguration,
    /** Whether a daemon's socket is there. */
    private readonly exists: (endpoint: Endpoint) => Promise<boolean>,
  ) {}

  endpoint(driver: string, readOnly: boolean): Endpoint {
    const { daemon } = daemonPlace(this.configuration, driver);
    const path = socketPath(this.configuration, driver, readOnly);
    return { driver, daemon, path, readOnly };
  }

  /**
   * The secondary daemon for `route` beside the hypervisor driver's, or null when that daemon
   * serves it itself.
   */
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
   * What an empty URI opens: the first hypervisor whose socket exists, else what all drivers share,
   * else the first whose daemon `isInstalled`; null when there is none of these.
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
      if (await this.exists(this.endpoint(driver, readOnly))) return target(driver);
    }
    if (isShared) return { driver: anyDriver, uri: '' };
    const startable = this.probed.find((driver) => isInstalled(`virt${driver}d`));
    return startable === undefined ? null : target(startable);
  }

  /** The drivers that an empty URI tries. */
  get probed(): readonly string[] {
    return hypervisorDrivers[this.configuration.mode];
  }

  /** Names of the daemons that there may be, as far as the proxy itself knows. */
  get daemonNames(): ReadonlySet<string> {
    const { routes } = this.configuration;
    const drivers = [...knownDrivers, ...Object.keys(routes)];
    return new Set(drivers.map((driver) => this.endpoint(driver, false).daemon));
  }
}
