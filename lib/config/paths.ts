import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';

/** `system` serves the whole host as root, `session` one user. */
export type Mode = 'system' | 'session';

/** The part of the environment that decides paths (`process.env` fits). */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where things are (behaviour of both modes: virtproxyd(8), FILES). All paths are absolute. */
export interface Paths {
  /**
   * The user's home directory; null for a user who has none: `/` stands for it in the other paths
   * then.
   */
  readonly home: string | null;
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
  /**
   * The log of a daemon in the background where nothing else is asked for and there is no journald.
   */
  readonly logFile: string;
}

/** The files of the TLS listener. `crl` is null when there is no revocation list. */
export interface TlsFiles {
  readonly ca: string;
  readonly crl: string | null;
  readonly cert: string;
  readonly key: string;
}

/** The files and what is in them. */
export interface TlsContents extends TlsFiles {
  /** Text in PEM form, by the kind of file. */
  readonly text: { readonly [Kind in keyof TlsFiles]: TlsFiles[Kind] };
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

/** The directories of one mode. */
interface Directories {
  readonly config: string;
  readonly run: string;
  readonly pid: string;
  readonly log: string;
}

const systemDirectories: Directories = {
  config: '/etc/libvirt',
  run: '/run/libvirt',
  pid: '/run',
  log: '/var/log/libvirt',
};

/** A user's directories, where GLib has them, whose rules libvirt's clients and daemons follow. */
function sessionDirectories(env: Environment, home: string | null): Directories {
  const config = xdgDirectory(env, 'XDG_CONFIG_HOME') ?? inHome(home, '.config');
  const cache = xdgDirectory(env, 'XDG_CACHE_HOME') ?? inHome(home, '.cache');
  const run = join(xdgDirectory(env, 'XDG_RUNTIME_DIR') ?? cache, 'libvirt');
  return { config: join(config, 'libvirt'), run, pid: run, log: join(cache, 'libvirt') };
}

/** The paths of a mode, before virtproxyd.conf and the command line change them. */
export function defaultPaths(mode: Mode, env: Environment, home: string | null): Paths {
  const { config, run, pid, log } =
    mode === 'system' ? systemDirectories : sessionDirectories(env, home);
  return {
    home,
    configFile: join(config, 'virtproxyd.conf'),
    clusterFile: join(config, CLUSTER_FILE_NAME),
    runDirectory: run,
    pidFile: join(pid, 'virtproxyd.pid'),
    daemonDirectory: run,
    hookFile: '/etc/libvirt/hooks/daemon',
    logFile: join(log, 'virtproxyd.log'),
  };
}

/**
 * The home directory of the user this process runs as: $HOME, else what the account database says.
 * Null when neither knows one, as for a bare number in a container.
 */
export function homeDirectory(env: Environment): string | null {
  const { HOME: home } = env;
  if (home !== undefined && isAbsolute(home)) return home;
  try {
    const { homedir } = userInfo();
    return isAbsolute(homedir) ? homedir : null;
  } catch {
    return null;
  }
}

/** What stands for the home directory of a user who has none, for GLib too. */
const noHome = '/';

const inHome = (home: string | null, name: string): string => join(home ?? noHome, name);

/**
 * What to add to an error about `path` where that is only there because the user has no home
 * directory; else empty.
 */
export function homelessness({ home }: Paths, path: string): string {
  if (home !== null || !path.startsWith(`${noHome}.`)) return '';
  return ' The user has no home directory: set XDG_RUNTIME_DIR for the sockets and XDG_CACHE_HOME for the log, or HOME.';
}

/**
 * The TLS files in use: the configured ones, else the default places of the mode. Looks at the
 * disk, since a default revocation list counts only if it is there, and a session prefers files in
 * ~/.pki/libvirt that exist (key and certificate as a pair). The other paths are returned whether
 * or not they exist.
 */
export function tlsFiles(mode: Mode, settings: TlsFileSettings, home: string | null): TlsFiles {
  const own = (name: string): string => join(inHome(home, '.pki/libvirt'), name);
  const pick = (ownFiles: readonly string[], system: readonly string[]): readonly string[] =>
    mode === 'session' && home !== null && ownFiles.every((file) => existsSync(file))
      ? ownFiles
      : system;

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

/**
 * Null when it is not set, or to a relative path, which the XDG base directory specification has
 * ignored.
 */
function xdgDirectory(env: Environment, name: string): string | null {
  const directory = env[name];
  return directory !== undefined && isAbsolute(directory) ? directory : null;
}
