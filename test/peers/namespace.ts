import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { pythonProgram, searchPath } from './clients.js';
import { until } from './waiting.js';

/**
 * Runs inside the namespaces: hides the machine's own libvirt state, then starts the command it was
 * given once for every line on its standard input and answers with the pid. When standard input
 * ends, because the namespace is closed or because the test process died, it kills whatever still
 * lives in this mount namespace: the daemon, its guests, their helpers. A /run of its own also
 * hides D-Bus, so that no daemon asks firewalld, machined or polkit.
 */
const keeper = `
set -eu
etc=$1 interfaces=$2
shift 2
mount -t tmpfs tmpfs /run
mkdir /run/lock
for directory in lib cache log; do
  mkdir -p "/var/$directory/libvirt"
  mount -t tmpfs tmpfs "/var/$directory/libvirt"
done
mkdir -p /etc/libvirt
mount --bind "$etc" /etc/libvirt
mount -t sysfs sysfs /sys
ip link set lo up
for interface in $interfaces; do
  ip link add "$interface" type veth peer name "peer-$interface"
  ip link set "$interface" up
  ip link set "peer-$interface" up
done
echo ready
while read -r _; do
  setpriv --pdeathsig KILL "$@" </dev/null >&2 &
  echo "$!"
done
living=1
while ((living)); do
  living=0
  for ns in /proc/[0-9]*/ns/mnt; do
    pid=\${ns#/proc/}; pid=\${pid%%/*}
    if [[ $pid != "$$" && $ns -ef /proc/$$/ns/mnt ]]; then
      living=1
      kill -KILL "$pid" || :
    fi
  done
done
wait
`;

/**
 * What a daemon leaves behind when it forks twice (every QEMU guest) becomes a child of this
 * process, which reaps it at once. With an init that is slow to reap, or a container's that never
 * does, libvirtd waits up to seconds for every guest it has killed. --norc because bash takes a
 * socket as standard input for a remote login and reads ~/.bashrc.
 */
const subreaper = `
import ctypes, os, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
os.execvp("bash", ["bash", "--norc", "-c", *sys.argv[1:]])
`;

export interface NamespaceOptions {
  /** An existing directory; its folder `etc` becomes /etc/libvirt inside. */
  readonly directory: string;
  readonly command: readonly string[];
  /** Network interfaces to make beside lo, each one end of a pair. */
  readonly interfaces?: readonly string[];
}

/**
 * A mount and network namespace in which one command can be started again and again. Nothing that
 * happens inside is seen by the machine: bridges, firewall rules and mounts vanish with the last
 * process.
 */
export class Namespace {
  /** Where bash's and the command's complaints go. */
  readonly errorFile: string;
  readonly #child: ChildProcess;
  #answers = '';

  private constructor({ directory, interfaces = [], command }: NamespaceOptions) {
    this.errorFile = join(directory, 'stderr');
    const errors = openSync(this.errorFile, 'a');
    const inside = [pythonProgram, '-ISc', subreaper, keeper, 'keeper'];
    const args = [join(directory, 'etc'), interfaces.join(' '), ...command];
    this.#child = spawn('unshare', ['-m', '-n', '--', ...inside, ...args], {
      // A session of its own: Ctrl-C in a terminal must not end it before its guests.
      detached: true,
      stdio: ['pipe', 'pipe', errors],
      env: { PATH: searchPath, LC_ALL: 'C.UTF-8' },
    });
    closeSync(errors);
    this.#child.stdin!.on('error', () => undefined);
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => (this.#answers += text));
    // A daemon that a failed test forgot must not keep the test process: it ends when that process
    // has ended.
    this.#child.unref();
    (this.#child.stdin as Socket).unref();
    (this.#child.stdout as Socket).unref();
  }

  /** Sets the namespaces up. Rejects, with what bash said, when the kernel refuses any of it. */
  static async open(options: NamespaceOptions): Promise<Namespace> {
    const namespace = new Namespace(options);
    await namespace.#answer(/^ready$/m);
    return namespace;
  }

  /** Process id of the keeper, whose /proc/PID/root is the file system as the command sees it. */
  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Starts the command and returns its process id. */
  async start(): Promise<number> {
    this.#answers = '';
    this.#child.stdin!.write('\n');
    const [, pid] = await this.#answer(/^(\d+)$/m);
    return Number(pid);
  }

  /** Ends every process in the namespaces, and with them the namespaces. */
  async close(): Promise<void> {
    this.#child.ref();
    this.#child.stdin!.end();
    if (this.#running()) await once(this.#child, 'exit');
  }

  #running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async #answer(pattern: RegExp): Promise<RegExpExecArray> {
    return await until(
      async () => {
        const match = pattern.exec(this.#answers);
        if (!match && !this.#running()) {
          throw new Error(`unshare failed: ${await readFile(this.errorFile, 'utf8')}`);
        }
        return match;
      },
      { what: 'the namespace of a daemon' },
    );
  }
}
