import { basename } from 'node:path';
import type { ConfSettings } from '../../config/keys.js';
import { type BoundAddress, boundAddress, isListening } from '../../native/socket-address.js';
import { setCloseOnExec } from '../../native/descriptors.js';
import { servicePort } from '../../native/services.js';
import { addressName } from './listener-plan.js';
import type { ServiceRole } from './listener.js';

/** A listening socket that the service manager opened and keeps open. */
export interface InheritedSocket {
  readonly fd: number;
  readonly role: ServiceRole;
  /** For log lines: the path, or `address:port`. */
  readonly name: string;
}

/** What tells the TCP sockets apart when they come without names. */
export type PortSettings = Pick<ConfSettings, 'tcp_port' | 'tls_port'>;

/** A socket that was passed cannot be served; the sentence names descriptor, name and address. */
export class ActivationError extends Error {
  readonly code = 'ACTIVATION';
}

/** The first descriptor passed (sd_listen_fds(3)). */
const firstDescriptor = 3;

/** More sockets than anybody passes. */
const maxDescriptors = 1024;

/** The end of a unit's name for each role: virtproxyd.socket, virtproxyd-ro.socket, … */
const unitSuffixes: Readonly<Record<ServiceRole, string>> = {
  rw: '',
  ro: '-ro',
  admin: '-admin',
  tcp: '-tcp',
  tls: '-tls',
};

const rolesByFile = new Map<string, ServiceRole>([
  ['libvirt-sock', 'rw'],
  ['libvirt-sock-ro', 'ro'],
  ['libvirt-admin-sock', 'admin'],
]);

const rolesByName = new Map<string, ServiceRole>(
  Object.entries(unitSuffixes).flatMap(([role, suffix]) =>
    ['virtproxyd', 'libvirtd'].map((daemon) => [`${daemon}${suffix}.socket`, role as ServiceRole]),
  ),
);

/**
 * The sockets passed to process `pid` by LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, in their order;
 * none when they are for another process. Each is told by its name, or else by its address.
 * Programs started later get neither the sockets nor the variables, which are removed from `env`.
 * @throws {ActivationError} for a socket that nobody would accept on, whose clients would wait for
 * ever
 */
export function inheritedSockets(
  env: Record<string, string | undefined>,
  pid: number,
  ports: PortSettings,
): InheritedSocket[] {
  const { LISTEN_PID: forPid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) {
    Reflect.deleteProperty(env, name);
  }
  if (forPid !== String(pid)) return [];
  if (!/^\d+$/.test(count) || Number(count) > maxDescriptors) {
    throw new ActivationError(
      `The number of sockets passed, LISTEN_FDS, is '${count}' and not one from 0 to ${maxDescriptors}`,
    );
  }
  const fdNames = names?.split(':') ?? [];
  return Array.from({ length: Number(count) }, (_, index) =>
    inheritedSocket(firstDescriptor + index, fdNames[index] ?? '', ports),
  );
}

/**
 * Sentences about UNIX sockets that were not passed though others were: as the daemon opens none
 * itself then, their clients cannot connect.
 * @param roles the UNIX sockets that the daemon serves in its mode
 */
export function missingSockets(
  sockets: readonly InheritedSocket[],
  roles: readonly ServiceRole[] = ['rw', 'ro', 'admin'],
): string[] {
  if (sockets.length === 0) return [];
  return roles
    .filter((role) => !sockets.some((socket) => socket.role === role))
    .map(
      (role) =>
        `No ${roleNames[role]} socket was passed by the service manager and none is opened: ` +
        `start virtproxyd${unitSuffixes[role]}.socket before the service if clients need it`,
    );
}

const roleNames = {
  rw: 'read-write',
  ro: 'read-only',
  admin: 'admin',
  tcp: 'TCP',
  tls: 'TLS',
} as const;

function inheritedSocket(fd: number, name: string, ports: PortSettings): InheritedSocket {
  const subject = `Descriptor ${fd}${name === '' ? '' : ` ('${name}')`}, passed by the service manager,`;
  const address = listeningAddress(fd, subject);
  const text =
    address.family === 'unix' ? address.path : addressName(address.address, address.port);
  const role = rolesByName.get(name) ?? roleByAddress(address, ports);
  if (role === null) {
    throw new ActivationError(
      `${subject} listens on '${text}', which tells nothing about its use: name it ` +
        `virtproxyd.socket or virtproxyd-{ro,admin,tcp,tls}.socket (FileDescriptorName=), or do not pass it`,
    );
  }
  const isNetworkRole = role === 'tcp' || role === 'tls';
  if (isNetworkRole !== (address.family !== 'unix')) {
    throw new ActivationError(
      `${subject} listens on '${text}', but a ${roleNames[role]} socket has to be a ` +
        `${isNetworkRole ? 'TCP' : 'UNIX'} socket: correct its ListenStream=`,
    );
  }
  return { fd, role, name: text };
}

function listeningAddress(fd: number, subject: string): BoundAddress {
  let address: BoundAddress | null;
  try {
    setCloseOnExec(fd, true);
    address = isListening(fd) ? boundAddress(fd) : null;
  } catch (error) {
    const reason = (error as Error).message;
    throw new ActivationError(`${subject} is of no use: ${reason}`, { cause: error });
  }
  if (address === null) {
    throw new ActivationError(
      `${subject} is no listening UNIX or TCP socket: its unit needs ListenStream= and Accept=no`,
    );
  }
  return address;
}

function roleByAddress(address: BoundAddress, ports: PortSettings): ServiceRole | null {
  if (address.family === 'unix') return rolesByFile.get(basename(address.path)) ?? null;
  if (address.port === portNumber(ports.tls_port)) return 'tls';
  return address.port === portNumber(ports.tcp_port) ? 'tcp' : null;
}

const portNumber = (text: string): number | null =>
  /^\d+$/.test(text) ? Number(text) : servicePort(text);
