import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

/** `system` serves the whole host as root, `session` one user. */
export type Mode = 'system' | 'session';

/** The part of the environment that decides paths (`process.env` fits). */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where things are (behaviour of both modes: virtproxyd(8), FILES). All paths are absolute. */
export interface Paths {
  /** virtproxyd.conf, unless -f names another. */
  readonly configFile: string;
  /** The cluster's ini file, beside `configFile`. */
  readonly clusterFile: string;
  /** Where the proxy's own sockets are made. */
  readonly runDirectory: string;
  readonly pidFile: string;
  /** Where the driver daemons' virt*d-sock sockets are. */
  readonly daemonDirectory: string;
  readonly hookFile: string;
  /** The log of a daemon in the background where nothing else is asked for and there is no journald. */
  readonly logFile: string;
}

/** The files of the TLS listener. `crl` is null when there is no revocation list. */
export interface TlsFiles {
  readonly ca: string;
  readonly crl: string | null;
  readonly cert: string;
  readonly key: string;
}

/** The keys of virtproxyd.conf that name TLS files. */
export interface TlsFileSettings {
  readonly ca_file: string | null;
  readonly crl_file: string | null;
  readonly cert_file: string | null;
  readonly key_file: string | null;
}

/** Name of the cluster's settings file, which stands beside the virtproxyd.conf in use. */
export const CLUSTER_FILE_NAME = 'virtproxyd-cluster.ini';

/** The mode of a process with this effective uid. */
export function modeOf(uid: number): Mode {
  return uid === 0 ? 'system' : 'session';
}

/** The paths of a mode, before virtproxyd.conf and the command line change them. */
export function defaultPaths(mode: Mode, env: Environment, homeDirectory: string): Paths {
  const configDirectory =
    mode === 'system'
      ? '/etc/libvirt'
      : join(xdgDirectory(env, 'XDG_CONFIG_HOME', join(homeDirectory, '.config')), 'libvirt');
  const runDirectory =
    mode === 'system'
      ? '/run/libvirt'
      : join(xdgDirectory(env, 'XDG_RUNTIME_DIR', join(homeDirectory, '.cache')), 'libvirt');
  const logDirectory =
    mode === 'system'
      ? '/var/log/libvirt'
      : join(xdgDirectory(env, 'XDG_CACHE_HOME', join(homeDirectory, '.cache')), 'libvirt');
  return {
    configFile: join(configDirectory, 'virtproxyd.conf'),
    clusterFile: join(configDirectory, CLUSTER_FILE_NAME),
    runDirectory,
    pidFile: mode === 'system' ? '/run/virtproxyd.pid' : join(runDirectory, 'virtproxyd.pid'),
    daemonDirectory: runDirectory,
    hookFile: '/etc/libvirt/hooks/daemon',
    logFile: join(logDirectory, 'virtproxyd.log'),
  };
}

/**
 * The TLS files in use: the configured ones, else the default places of the mode. Looks at the disk, since a default
 * revocation list counts only if it is there, and a session prefers files in ~/.pki/libvirt that exist (key and
 * certificate as a pair). The other paths are returned whether or not they exist.
 */
export function tlsFiles(mode: Mode, settings: TlsFileSettings, homeDirectory: string): TlsFiles {
  const own = (name: string): string => join(homeDirectory, '.pki/libvirt', name);
  const pick = (ownFiles: readonly string[], system: readonly string[]): readonly string[] =>
    mode === 'session' && ownFiles.every((file) => existsSync(file)) ? ownFiles : system;

  const [ca = ''] = pick([own('cacert.pem')], ['/etc/pki/CA/cacert.pem']);
  const [crl = ''] = pick([own('cacrl.pem')], ['/etc/pki/CA/cacrl.pem']);
  const [cert = '', key = ''] = pick(
    [own('servercert.pem'), own('serverkey.pem')],
    ['/etc/pki/libvirt/servercert.pem', '/etc/pki/libvirt/private/serverkey.pem'],
  );
  return {
    ca: settings.ca_file ?? ca,
    crl: settings.crl_file ?? (settings.ca_file === null && existsSync(crl) ? crl : null),
    cert: settings.cert_file ?? cert,
    key: settings.key_file ?? key,
  };
}

function xdgDirectory(env: Environment, name: string, fallback: string): string {
  const directory = env[name];
  // The XDG base directory specification has relative paths ignored.
  return directory !== undefined && isAbsolute(directory) ? directory : fallback;
}
