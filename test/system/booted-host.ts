import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Finished, run, searchPath } from '../peers/clients.js';
import { missingPrograms } from '../peers/modular-host.js';
import { freshDirectory, until } from '../peers/waiting.js';

const project = fileURLToPath(new URL('../../../', import.meta.url));
const build = fileURLToPath(new URL('../../', import.meta.url));
const systemd = '/lib/systemd/systemd';
const alsoNeeded = [
  systemd,
  '/usr/bin/dbus-daemon',
  '/usr/lib/polkit-1/polkitd',
  '/usr/sbin/saslpasswd2',
];

/** Routes to the machine's libvirtd, where the host below has it. */
export const clusterIni =
  '[cluster]\nworkers = 1\n[routes]\ndefault = /run/libvirtd/libvirt-sock\n';

/** How the program gets into the file system at $root: the script to install it by hand. */
const installed = `
DESTDIR=$root BUILD_DIR=$2 WITH=systemd NODE=$3 bash "$4/conf/install" >"$layer/said"
printf '${clusterIni.replaceAll('\n', '\\n')}' >>"$root/etc/libvirt/virtproxyd-cluster.ini"
`;

/**
 * The machine's libvirtd with sockets that leave the usual ones to the proxy, as the manual page
 * advises.
 */
const libvirtdBehind = `
for unit in libvirtd{,-ro,-admin,-tcp,-tls}.socket; do
  ln -s /dev/null "$root/etc/systemd/system/$unit"
done
mkdir "$root/etc/systemd/system/libvirtd.service.d"
cat >"$root/etc/systemd/system/libvirtd.service.d/sockets.conf" <<END
[Service]
Environment=LIBVIRTD_ARGS=
RuntimeDirectory=libvirtd
END
echo 'unix_sock_dir = "/run/libvirtd"' >>"$root/etc/libvirt/libvirtd.conf"
`;

/** What is on the host when it boots. */
export interface HostOptions {
  /**
   * Puts things into the file system at $root: a script. When left out: the program, installed by
   * hand.
   */
  readonly prepare?: string;
  /**
   * Where libvirtd listens: behind the proxy, started by hand, or with its own units as Debian has
   * them.
   */
  readonly libvirtd?: 'behind' | 'own';
  /** The first process; `none` is for init scripts run by hand. */
  readonly init?: 'systemd' | 'none';
}

/**
 * What is done in the namespaces before the first process takes over: a writable layer over the
 * machine's own file system, file systems and devices of its own.
 */
const boot = ({
  prepare = installed,
  libvirtd = 'behind',
  init = 'systemd',
}: HostOptions): string => `
set -euo pipefail
layer=$1/layer root=$1/layer/root
mkdir "$layer"
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
rm -rf "$root"/etc/systemd/system/* "$root"/etc/libvirt/hooks/*
${prepare}
${libvirtd === 'behind' ? libvirtdBehind : ''}
cd "$root"
cat >etc/systemd/system/test.target <<END
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
END
for unit in systemd-{udevd,networkd,resolved,timesyncd}.service; do
  ln -s /dev/null "etc/systemd/system/$unit"
done

mkdir machine
pivot_root . machine
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /dev
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
  read -r name major minor <<<"$device"
  mknod -m 666 "/dev/$name" c "$major" "$minor"
done
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s pts/ptmx /dev/ptmx
ip link set lo up
umount --lazy /machine
exec env -i container=other PATH=/usr/sbin:/usr/bin ${
  init === 'none' ? 'sleep infinity' : `${systemd} --unit=test.target --show-status=no`
}
`;

const namespaces = ['--mount', '--pid', '--net', '--uts', '--ipc', '--cgroup'];

/**
 * A machine of its own, as far as namespaces make one, on which the real systemd runs with the
 * program installed.
 */
export class BootedHost {
  readonly #child: ChildProcess;
  readonly #directory: string;
  #init = 0;

  private constructor(
    directory: string,
    private readonly options: HostOptions,
  ) {
    this.#directory = directory;
    const errors = openSync(join(directory, 'errors'), 'a');
    const command = [boot(options), 'boot', directory, build, process.execPath, project];
    this.#child = spawn(
      // It is gone when the test process is.
      'setpriv',
      ['--pdeathsig', 'KILL', 'unshare', ...namespaces, '--fork', '--kill-child', '--']
        .concat(['bash', '-c'])
        .concat(command),
      { detached: true, stdio: ['ignore', errors, errors], env: { PATH: searchPath } },
    );
    closeSync(errors);
  }

  /** Resolves when systemd has started everything. */
  static async boot(options: HostOptions = {}): Promise<BootedHost> {
    const host = new BootedHost(await freshDirectory(), options);
    try {
      await host.#started();
    } catch (error) {
      await host.stop();
      throw error;
    }
    return host;
  }

  /** Runs a shell script on the host. */
  shell(script: string, { timeoutMs = 30_000 } = {}): Promise<Finished> {
    const enter = ['--target', String(this.#init), '--mount', '--pid', '--net', '--uts', '--ipc'];
    return run('nsenter', [...enter, '--cgroup', '--root', '--wd', '--', 'sh', '-c', script], {
      timeoutMs,
    });
  }

  /** Runs a shell script that must succeed; resolves with what it prints. */
  async output(script: string, options?: { readonly timeoutMs: number }): Promise<string> {
    const { code, stdout, stderr } = await this.shell(script, options);
    if (code !== 0) throw new Error(`status ${code ?? ''}: ${script}: ${stdout}${stderr}`);
    return stdout.trim();
  }

  /** Ends everything on the host, and the host. */
  async stop(): Promise<void> {
    if (this.#init !== 0) process.kill(this.#init, 'SIGKILL');
    else this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      await once(this.#child, 'exit');
    }
    await rm(this.#directory, { recursive: true });
  }

  async #started(): Promise<void> {
    const pid = this.#child.pid ?? 0;
    await until(
      async () => {
        if (this.#child.exitCode !== null) {
          throw new Error(readFileSync(join(this.#directory, 'errors'), 'utf8'));
        }
        // unshare's only child is the first process in the namespaces.
        this.#init = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'));
        if (this.#init === 0) return false;
        const first = readFileSync(`/proc/${this.#init}/cmdline`, 'utf8');
        if (this.options.init === 'none') return first.startsWith('sleep\0');
        if (!first.includes(systemd)) return false;
        const { stdout } = await this.shell('systemctl is-system-running');
        return /^(running|degraded)$/.test(stdout.trim());
      },
      { what: 'systemd to start', deadlineMs: 60_000 },
    );
  }
}

let obstacle: string | null | undefined;

/** Why systemd cannot run here, for a skipped test's title; null when it can. */
export function whyNoBoot(): string | null {
  if (obstacle === undefined) obstacle = findObstacle();
  return obstacle;
}

function findObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = missingPrograms();
  missing.push(...alsoNeeded.filter((path) => !existsSync(path)));
  if (missing.length > 0) return `needs ${missing.join(', ')}`;
  const trial =
    'mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w /mnt/m && ' +
    'mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m && ' +
    'mount -t cgroup2 cgroup2 /mnt/m/mnt && mknod /mnt/null c 1 3';
  const { status, stderr } = spawnSync(
    'unshare',
    [...namespaces, '--fork', '--', 'sh', '-c', trial],
    { encoding: 'utf8' },
  );
  return status === 0 ? null : `needs namespaces, an overlay and cgroups: ${stderr.trim()}`;
}
