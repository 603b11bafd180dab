import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { pythonProgram, searchPath } from './clients.js';
import { Daemon, drivers, type Driver } from './daemon.js';
import { freshDirectory } from './waiting.js';

const programs = [
  'libvirtd',
  'virsh',
  'virt-admin',
  'qemu-system-x86_64',
  'unshare',
  'setpriv',
  'ip',
];

/**
 * Names the programs (and Python modules) a modular host and its clients need and this machine
 * lacks.
 */
export function missingPrograms(): string[] {
  const missing = programs.filter((program) => !isInstalled(program));
  const binding = spawnSync(pythonProgram, ['-c', 'import libvirt']);
  return binding.status === 0 ? missing : [...missing, `${pythonProgram} with libvirt's binding`];
}

let obstacle: string | null | undefined;

/**
 * Why no modular host can run here, as a sentence for a skipped test's title; null when one can.
 */
export function whyNoHost(): string | null {
  if (obstacle === undefined) obstacle = findObstacle();
  return obstacle;
}

/** Whether a daemon for lxc can be started too. */
export function hasLxc(): boolean {
  return isInstalled('libvirt_lxc', '/usr/lib/libvirt:/usr/libexec');
}

export interface ModularHostOptions {
  /** Which daemons to start; all but lxc when left out. */
  readonly drivers?: readonly Driver[];
  /** Made if it does not exist, and removed by `stop` in any case. A fresh one when left out. */
  readonly directory?: string;
  /** Lines for every daemon's libvirtd.conf. */
  readonly extraConf?: string;
}

/**
 * A virtualization host with modular daemons: `directory` holds virtqemud-sock, virtqemud-sock-ro
 * and so on, as /run/libvirt does. What is defined in one daemon exists in that one alone.
 */
export class ModularHost {
  readonly directory: string;
  readonly daemons: ReadonlyMap<Driver, Daemon>;

  private constructor(directory: string, daemons: readonly Daemon[]) {
    this.directory = directory;
    this.daemons = new Map(daemons.map((daemon) => [daemon.driver, daemon]));
  }

  /**
   * Starts all daemons side by side; when one fails the others are ended and the directory is
   * removed.
   */
  static async start(options: ModularHostOptions = {}): Promise<ModularHost> {
    const directory = options.directory ?? (await freshDirectory());
    await mkdir(directory, { recursive: true });
    const wanted = options.drivers ?? drivers;
    const starts = await Promise.allSettled(
      wanted.map((driver) => startDaemon(directory, driver, options.extraConf)),
    );
    const started = starts.filter((start) => start.status === 'fulfilled');
    const host = new ModularHost(
      directory,
      started.map(({ value }) => value),
    );
    const failed = starts.find((start) => start.status === 'rejected');
    if (failed) {
      await host.stop();
      throw failed.reason;
    }
    await writeFile(join(directory, 'routes.ini'), host.routesIni());
    return host;
  }

  /** The daemon that serves a driver; throws when it was not started. */
  daemon(driver: Driver): Daemon {
    const daemon = this.daemons.get(driver);
    if (!daemon) throw new Error(`This host was started without a daemon for ${driver}.`);
    return daemon;
  }

  /** Where clients find a driver's daemon; the read-only socket has `-ro` behind it. */
  socket(driver: Driver): string {
    return socketLink(this.directory, driver);
  }

  /**
   * The `[routes]` section of the cluster's ini file that leads a proxy here. Also in
   * `directory`/routes.ini.
   */
  routesIni(): string {
    const lines = [...this.daemons.keys()].map((driver) => `${driver} = ${this.socket(driver)}\n`);
    return `[routes]\n${lines.join('')}`;
  }

  /** Ends every daemon with its guests and removes the directory. */
  async stop(): Promise<void> {
    await Promise.all([...this.daemons.values()].map((daemon) => daemon.stop()));
    await rm(this.directory, { recursive: true, force: true });
  }
}

function socketLink(directory: string, driver: Driver): string {
  return join(directory, `virt${driver}d-sock`);
}

async function startDaemon(
  directory: string,
  driver: Driver,
  extraConf: string | undefined,
): Promise<Daemon> {
  const own = join(directory, driver);
  await mkdir(own);
  const link = socketLink(directory, driver);
  await symlink(join(driver, 'libvirt-sock'), link);
  await symlink(join(driver, 'libvirt-sock-ro'), `${link}-ro`);
  return await Daemon.start({ driver, directory: own, ...(extraConf && { extraConf }) });
}

function findObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = missingPrograms();
  if (missing.length > 0) return `needs ${missing.join(', ')}`;
  const mounts = 'mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys';
  const trial = spawnSync('unshare', ['-m', '-n', '--', 'sh', '-c', mounts], { encoding: 'utf8' });
  return trial.status === 0 ? null : `needs namespaces: ${trial.stderr.trim()}`;
}

function isInstalled(program: string, path = searchPath): boolean {
  return path.split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
