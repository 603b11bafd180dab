import type { KeyRow } from './key-row.js';
import {
  absolutePath,
  host,
  octalMode,
  oddGroup,
  oddMode,
  port,
  relativePath,
  socketDirectory,
  text,
  ValueError,
} from './values.js';

/** Where the daemon listens and whom it lets in. */
export const ACCESS_KEYS = {
  listen_tls: {
    type: 'bool',
    section: 'network',
    default: false,
    help: 'Whether to accept TLS connections. Needs the certificates described below.',
  },
  listen_tcp: {
    type: 'bool',
    section: 'network',
    default: false,
    help:
      'Whether to accept unencrypted TCP connections. Unless auth_tcp is changed they need a ' +
      'SASL mechanism that encrypts.',
  },
  tls_port: {
    type: 'port',
    section: 'network',
    default: '16514',
    needs: ['listen_tls'],
    read: port,
    help: 'Port of the TLS listener: a number or the name of a service, in quotes.',
  },
  tcp_port: {
    type: 'port',
    section: 'network',
    default: '16509',
    needs: ['listen_tcp'],
    read: port,
    help: 'Port of the TCP listener: a number or the name of a service, in quotes.',
  },
  listen_addr: {
    type: 'string',
    section: 'network',
    default: null,
    unset: 'all addresses, IPv4 and IPv6',
    example: '192.0.2.1',
    needs: ['listen_tcp', 'listen_tls'],
    read: host,
    help:
      'The address, or a name that stands for it, on which the TLS and TCP listeners wait. An ' +
      'address other than 0.0.0.0 and :: must exist when the daemon starts.',
  },

  unix_sock_group: {
    type: 'string',
    section: 'unix',
    default: null,
    unset: 'the group of the daemon',
    example: 'libvirt',
    read: text,
    caveat: oddGroup,
    help:
      'Group that owns the sockets: a name, or a number, which need not be known. +107 is never ' +
      'taken for a name. Together with the permissions below the group opens the daemon to ' +
      'people who are not root.',
  },
  unix_sock_ro_perms: {
    type: 'string',
    section: 'unix',
    default: '0777',
    read: octalMode,
    caveat: oddMode,
    help: 'Permissions of the read-only socket, in octal.',
  },
  unix_sock_rw_perms: {
    type: 'string',
    section: 'unix',
    default: { system: '0777', session: '0700' },
    unset: '"0777" where auth_unix_rw is "polkit", else "0700"',
    read: octalMode,
    caveat: oddMode,
    help:
      'Permissions of the read-write socket, in octal. Who may write to this socket and ' +
      'passes auth_unix_rw has the rights of root on the host.',
  },
  unix_sock_admin_perms: {
    type: 'string',
    section: 'unix',
    default: '0700',
    read: octalMode,
    caveat: oddMode,
    help:
      "Permissions of the admin socket, in octal. Its clients must run as the daemon's own " +
      'user in any case.',
  },
  unix_sock_dir: {
    type: 'string',
    section: 'unix',
    default: null,
    unset: '/run/libvirt, or $XDG_RUNTIME_DIR/libvirt in session mode',
    example: '/run/libvirt',
    read: socketDirectory,
    caveat: relativePath,
    help:
      'Directory in which the sockets are made. The sockets of the driver daemons are not ' +
      'looked for there.',
  },

  auth_unix_ro: {
    type: 'enum',
    values: ['none', 'sasl', 'polkit'],
    section: 'authentication',
    default: { system: 'polkit', session: 'none' },
    help:
      'How clients of the read-only socket authenticate: "none", "sasl" or "polkit". With ' +
      '"polkit" they need the action org.libvirt.unix.monitor.',
  },
  auth_unix_rw: {
    type: 'enum',
    values: ['none', 'sasl', 'polkit'],
    section: 'authentication',
    default: { system: 'polkit', session: 'none' },
    help:
      'How clients of the read-write socket authenticate: "none", "sasl" or "polkit". With ' +
      '"polkit" they need the action org.libvirt.unix.manage. With "none" the permissions of ' +
      'the socket are the only protection; the units of socket activation set them with ' +
      'SocketMode.',
  },
  auth_tcp: {
    type: 'enum',
    values: ['none', 'sasl'],
    unfit: { polkit: 'polkit works on UNIX sockets only' },
    needs: ['listen_tcp'],
    section: 'authentication',
    default: 'sasl',
    help:
      'How TCP clients authenticate: "sasl" or "none". With "none" everybody who reaches the ' +
      'port controls the host, and everything is sent in clear text.',
  },
  auth_tls: {
    type: 'enum',
    values: ['none', 'sasl'],
    unfit: { polkit: 'polkit works on UNIX sockets only' },
    needs: ['listen_tls'],
    section: 'authentication',
    default: 'none',
    help: 'How TLS clients authenticate beyond their certificate: "none" or "sasl".',
  },
  tcp_min_ssf: {
    type: 'uint',
    section: 'authentication',
    default: 56,
    example: 112,
    read: minimumSsf,
    caveat: unreachableSsf,
    help:
      'The weakest encryption, as key size in bits, that a SASL mechanism may bring to a TCP ' +
      'connection. A value below 112 cannot be set.',
  },
  access_drivers: {
    type: 'string-list',
    section: 'authentication',
    default: null,
    unset: 'no access driver',
    example: ['polkit'],
    ignored:
      'the driver daemons check every call, so set access_drivers in their configuration files',
    caveat: unknownDrivers,
    help: 'Access control for single calls.',
  },

  key_file: {
    type: 'string',
    section: 'tls',
    default: null,
    unset: '/etc/pki/libvirt/private/serverkey.pem',
    example: '/etc/pki/libvirt/private/serverkey.pem',
    needs: ['listen_tls'],
    read: absolutePath,
    help:
      'Private key of the server. key_file, cert_file and ca_file are set together or not at ' +
      'all.',
  },
  cert_file: {
    type: 'string',
    section: 'tls',
    default: null,
    unset: '/etc/pki/libvirt/servercert.pem',
    example: '/etc/pki/libvirt/servercert.pem',
    needs: ['listen_tls'],
    read: absolutePath,
    help: 'Certificate of the server.',
  },
  ca_file: {
    type: 'string',
    section: 'tls',
    default: null,
    unset: '/etc/pki/CA/cacert.pem',
    example: '/etc/pki/CA/cacert.pem',
    needs: ['listen_tls'],
    read: absolutePath,
    help: 'Certificates of the authorities that sign the certificates of clients.',
  },
  crl_file: {
    type: 'string',
    section: 'tls',
    default: null,
    unset: '/etc/pki/CA/cacrl.pem if it exists and ca_file is not set',
    example: '/etc/pki/CA/cacrl.pem',
    needs: ['listen_tls'],
    read: absolutePath,
    help:
      'Lists of revoked certificates, of clients and of the authorities above them. A file named ' +
      'here must exist. With it a client is refused unless its chain can be followed up to ' +
      'ca_file past nothing revoked; Node.js 24.21 and 26.8.0 to 26.8.2 lose what clients send ' +
      'above their own certificate, so with those, ca_file must hold the authorities between too.',
  },
  tls_no_sanity_certificate: {
    type: 'bool',
    section: 'tls',
    default: false,
    help:
      "Whether to start without a look at the server's own certificates. The checks find " +
      'expired certificates, wrong purposes and broken chains before clients do.',
  },
  tls_no_verify_certificate: {
    type: 'bool',
    section: 'tls',
    default: false,
    help:
      'Whether to let clients in without a valid certificate. Safe only with auth_tls = ' +
      '"sasl".',
  },
  tls_priority: {
    type: 'string',
    section: 'tls',
    default: null,
    unset: 'TLS 1.2 and later with the ciphers of the system',
    example: 'NORMAL',
    needs: ['listen_tls'],
    read: text,
    help: 'TLS versions and ciphers, as a GnuTLS priority string.',
  },

  tls_allowed_dn_list: {
    type: 'string-list',
    section: 'access',
    default: null,
    unset: 'every valid certificate',
    example: ['C=GB,O=Example,CN=admin*'],
    help:
      'The distinguished names of clients that are let in over TLS, written as ' +
      'virt-pki-query-dn prints them. * stands for any text and ? for any one character. An ' +
      'empty list lets nobody in.',
  },
  sasl_allowed_username_list: {
    type: 'string-list',
    section: 'access',
    default: null,
    unset: 'every authenticated user',
    example: ['joe@EXAMPLE.COM', '*@ADMINS.EXAMPLE.COM'],
    help:
      'The SASL user names that are let in. * stands for any text and ? for any one ' +
      'character. An empty list lets nobody in.',
  },
} as const satisfies Record<string, KeyRow>;

/**
 * What SASL mechanisms can bring at most, in bits: the ceiling that libvirt's daemons ask them for.
 */
const SSF_MAX = 100_000;

const ACCESS_DRIVERS: readonly string[] = ['none', 'polkit'];

function minimumSsf(value: number): number {
  if (value < 112) {
    throw new ValueError(`is ${value}, but minimum SSF levels lower than 112 are not supported`);
  }
  return value;
}

function unreachableSsf(value: number): string | null {
  return value > SSF_MAX
    ? `is ${value}, but no mechanism brings more than ${SSF_MAX}: nobody can log in by SASL over TCP`
    : null;
}

function unknownDrivers(names: readonly string[]): string | null {
  const unknown = names.filter((name) => !ACCESS_DRIVERS.includes(name));
  const list = unknown.map((name) => `"${name}"`).join(', ');
  return unknown.length === 0
    ? null
    : `names ${list}, which no daemon of libvirt knows and none would start with`;
}
