import { lookup } from 'node:dns/promises';
import { isIP, isIPv6 } from 'node:net';
import { join } from 'node:path';
import type { Configuration } from '../../config/configuration.js';
import {
  clusterKeyFault,
  keyFault,
  placeOfClusterKey,
  placeOfKey,
} from '../../config/key-fault.js';
import { groupNumber, hostAndPort } from '../../config/values.js';
import { ConfigError, isInForce } from '../../config/errors.js';
import { groupId } from '../../native/accounts.js';
import { servicePort } from '../../native/services.js';
import type { ListenerSettings, ServiceRole } from './listener.js';
import type { SocketFilePlan } from './socket-file.js';

/** A listening socket that the configuration asks for. */
export type PlannedListener = {
  readonly settings: ListenerSettings;
  /** Where the configuration file asks for it; null: nowhere. */
  readonly place: string | null;
} & (
  | { readonly file: SocketFilePlan }
  /** One that is there already. */
  | { readonly isOpen: true }
  | {
      readonly address: string;
      readonly port: number;
      /** One of the wildcard addresses that need not exist: a host may be without IPv6. */
      readonly optional: boolean;
    }
);

/** A socket that the service manager has opened for clients or administrators. */
export interface ActivatedSocket {
  readonly role: ServiceRole;
  readonly name: string;
}

/**
 * Under socket activation the service manager decides what there is to listen on. Throws
 * ConfigError for settings that were no mistake while a listener was off.
 */
export function underActivation(
  configuration: Configuration,
  activated: readonly ActivatedSocket[],
): Configuration {
  if (activated.length === 0) return configuration;
  const has = (wanted: ServiceRole): boolean => activated.some(({ role }) => role === wanted);
  const conf = { ...configuration.conf, listen_tcp: has('tcp'), listen_tls: has('tls') };
  const [first, ...others] = configuration.dormant.filter((problem) => isInForce(problem, conf));
  if (first !== undefined) throw new ConfigError([first, ...others]);
  return { ...configuration, conf };
}

/**
 * What to say of a read-write socket that is root's alone because nobody logs in there, where
 * distributions' builds of the C daemon let everybody in; null where that does not apply.
 */
export function closedToGroups(
  { mode, conf, lines, paths }: Configuration,
  activated: readonly ActivatedSocket[],
): string | null {
  if (mode === 'session' || activated.length > 0) return null;
  if (conf.auth_unix_rw !== 'none' || lines.unix_sock_rw_perms !== undefined) return null;
  return (
    `auth_unix_rw is "none": ${join(paths.runDirectory, 'libvirt-sock')} has mode ${conf.unix_sock_rw_perms} and is root's alone; ` +
    'unix_sock_group = "GROUP" and unix_sock_rw_perms = "0770" open it to a group'
  );
}

/**
 * All listening sockets: those that the service manager has opened, if any, else those of the
 * configuration, and that for metrics, of which the service manager knows nothing. Throws
 * ConfigError for a group, name or port nobody knows.
 */
export async function planListeners(
  configuration: Configuration,
  activated: readonly ActivatedSocket[],
): Promise<PlannedListener[]> {
  const metrics = await planMetrics(configuration);
  if (activated.length === 0) return [...(await planService(configuration)), ...metrics];
  const open = activated.map(({ role, name }) => {
    const settings = listenerSettings(configuration, role, name, true);
    return { settings, place: null, isOpen: true } as const;
  });
  return [...open, ...metrics];
}

async function planService(configuration: Configuration): Promise<PlannedListener[]> {
  const { conf } = configuration;
  const plan: PlannedListener[] = plannedPaths(configuration);
  if (conf.listen_tcp) plan.push(...(await plannedAddresses(configuration, 'tcp')));
  if (conf.listen_tls) plan.push(...(await plannedAddresses(configuration, 'tls')));
  return plan;
}

/** The socket of `[metrics]`, or several where its name has several addresses. */
async function planMetrics(configuration: Configuration): Promise<PlannedListener[]> {
  const { listen } = configuration.metrics;
  if (listen === null) return [];
  const place = placeOfClusterKey(configuration, 'metrics', 'listen');
  const remote = hostAndPort(listen);
  if (remote === null) {
    const settings = metricsSettings('unix', listen);
    return [{ settings, place, file: { path: listen, mode: 0o600, group: null } }];
  }
  const { host, port } = remote;
  const addresses = await addressesOf(host, (sentence) =>
    clusterKeyFault(configuration, 'metrics', 'listen', sentence),
  );
  return addresses.map((address) => ({
    settings: metricsSettings('tcp', addressName(address, port)),
    place,
    address,
    port,
    optional: addresses.length > 1 && isIPv6(address),
  }));
}

function metricsSettings(transport: 'unix' | 'tcp', name: string): ListenerSettings {
  return {
    role: 'metrics',
    isActivated: false,
    transport,
    auth: 'none',
    readOnly: true,
    name,
    backlog: metricsBacklog,
  };
}

/** What a listener does with the connections it accepts, by the part it plays. */
export function listenerSettings(
  { conf }: Configuration,
  role: ServiceRole,
  name: string,
  isActivated = false,
): ListenerSettings {
  const roles = {
    rw: { transport: 'unix', auth: conf.auth_unix_rw, readOnly: false },
    ro: { transport: 'unix', auth: conf.auth_unix_ro, readOnly: true },
    // Its clients must run as the daemon's own user: see AdminServer.
    admin: { transport: 'unix', auth: 'none', readOnly: false },
    tcp: { transport: 'tcp', auth: conf.auth_tcp, readOnly: false },
    tls: { transport: 'tls', auth: conf.auth_tls, readOnly: false },
  } as const;
  const queue = role === 'admin' ? conf.admin_max_queued_clients : conf.max_queued_clients;
  return {
    ...roles[role],
    role,
    isActivated,
    name,
    backlog: queue || defaultBacklog,
  };
}

/** Connections for metrics that may wait; few ask at a time. */
const metricsBacklog = 64;

/** What max_queued_clients = 0 means. */
const defaultBacklog = 30;

/**
 * `virt-admin -c libvirtd:///system` looks for the first, `virt-admin -c virtproxyd:///system` for
 * the second.
 */
const adminSocketNames = ['libvirt-admin-sock', 'virtproxyd-admin-sock'];

function plannedPaths(configuration: Configuration): PlannedListener[] {
  const { conf, mode, paths } = configuration;
  const group = plannedGroup(configuration);
  const place = placeOfKey(configuration, 'unix_sock_dir');
  const plan = (
    role: 'rw' | 'ro' | 'admin',
    name: string,
    permissions: string,
  ): PlannedListener => {
    const path = join(paths.runDirectory, name);
    return {
      settings: listenerSettings(configuration, role, path),
      place,
      file: { path, mode: parseInt(permissions, 8), group },
    };
  };
  const readWrite = plan('rw', 'libvirt-sock', conf.unix_sock_rw_perms);
  const admin = adminSocketNames.map((name) => plan('admin', name, conf.unix_sock_admin_perms));
  // A user's own daemon has no read-only socket.
  if (mode === 'session') return [readWrite, ...admin];
  return [readWrite, plan('ro', 'libvirt-sock-ro', conf.unix_sock_ro_perms), ...admin];
}

async function plannedAddresses(
  configuration: Configuration,
  role: 'tcp' | 'tls',
): Promise<PlannedListener[]> {
  const { conf } = configuration;
  const key = role === 'tcp' ? 'tcp_port' : 'tls_port';
  const port = plannedPort(configuration, key);
  const place = placeOfKey(configuration, key);
  const addresses = await plannedHosts(configuration);
  return addresses.map((address) => ({
    settings: listenerSettings(configuration, role, addressName(address, port)),
    place,
    address,
    port,
    optional: conf.listen_addr === null && isIPv6(address),
  }));
}

/** `address:port` as administrators write it. */
export const addressName = (address: string, port: number): string =>
  `${isIPv6(address) ? `[${address}]` : address}:${port}`;

function plannedGroup(configuration: Configuration): number | null {
  const { unix_sock_group: group } = configuration.conf;
  if (group === null) return null;
  // C's order: a plus rules a name out, and a name of digits comes before the number.
  const id = (group.startsWith('+') ? null : groupId(group)) ?? groupNumber(group);
  if (id !== null) return id;
  throw keyFault(configuration, 'unix_sock_group', `There is no group '${group}'.`);
}

function plannedPort(configuration: Configuration, key: 'tcp_port' | 'tls_port'): number {
  const text = configuration.conf[key];
  const port = /^[0-9]+$/.test(text) ? Number(text) : servicePort(text);
  if (port !== null) return port;
  throw keyFault(configuration, key, `There is no service '${text}'; see /etc/services.`);
}

async function plannedHosts(configuration: Configuration): Promise<string[]> {
  const { listen_addr: host } = configuration.conf;
  if (host === null) return ['0.0.0.0', '::'];
  return addressesOf(host, (sentence) => keyFault(configuration, 'listen_addr', sentence));
}

async function addressesOf(
  host: string,
  fault: (sentence: string) => ConfigError,
): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    const found = await lookup(host, { all: true });
    return [...new Set(found.map(({ address }) => address))];
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    throw fault(`The name '${host}' has no address (${reason}).`);
  }
}
