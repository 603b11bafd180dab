import { createConnection } from 'node:net';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { socketUri, virsh, virtAdmin, type Finished } from './clients.js';
import { Namespace } from './namespace.js';
import { until } from './waiting.js';

/**
 * The drivers a modular host has a daemon for; lxc only where Debian's libvirt-daemon-driver-lxc is
 * installed.
 */
export const drivers = [
  'qemu',
  'network',
  'storage',
  'nodedev',
  'secret',
  'nwfilter',
  'interface',
] as const;
export type Driver = (typeof drivers)[number] | 'lxc';

export interface DaemonOptions {
  /**
   * Which modular daemon it plays. The libvirtd behind it has every driver, each with state of its
   * own.
   */
  readonly driver: Driver;
  /** An existing directory for its sockets, configuration and log. */
  readonly directory: string;
  /**
   * Lines for libvirtd.conf. The keys set here already must not be repeated: see `configuration`.
   */
  readonly extraConf?: string;
  /** Value of log_filters in place of the usual one, which names every API call and every frame. */
  readonly logFilters?: string;
}

/**
 * One client of a daemon as its `virt-admin client-info` prints it: `unix_user_id`, `readonly`, …
 */
export type ClientInfo = Readonly<Record<string, string>>;

/**
 * Debug of libvirt's public API (its function names, with arguments) and one line for each frame.
 */
const usualFilters = '1:libvirt. 2:rpc.netserverclient';

/** QEMU as root, without what a container or an unprivileged kernel refuses. */
const qemuConf = `
namespaces = []
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
stdio_handler = "file"
`;

/** A libvirtd that plays one modular daemon, in namespaces of its own. */
export class Daemon {
  readonly driver: Driver;
  readonly directory: string;
  /** The libvirtd's process id; another one after `restart`. */
  pid = -1;
  readonly socket: string;
  readonly readOnlySocket: string;
  readonly adminSocket: string;
  readonly logFile: string;
  /** For virsh, past any proxy. */
  readonly uri: string;
  readonly readOnlyUri: string;
  readonly #namespace: Namespace;

  private constructor({ driver, directory }: DaemonOptions, namespace: Namespace) {
    this.driver = driver;
    this.directory = directory;
    this.socket = join(directory, 'libvirt-sock');
    this.readOnlySocket = join(directory, 'libvirt-sock-ro');
    this.adminSocket = join(directory, 'libvirt-admin-sock');
    this.logFile = join(directory, 'log');
    this.uri = socketUri(driver, this.socket);
    this.readOnlyUri = socketUri(driver, this.readOnlySocket);
    this.#namespace = namespace;
  }

  /**
   * Resolves when the daemon accepts connections; rejects with its own words when it ends instead.
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const etc = join(options.directory, 'etc');
    await mkdir(etc, { recursive: true });
    await writeFile(join(etc, 'libvirtd.conf'), configuration(options));
    await writeFile(join(etc, 'qemu.conf'), qemuConf);
    const command = ['libvirtd', '--config', join(etc, 'libvirtd.conf')];
    const interfaces = options.driver === 'interface' ? ['veth0'] : [];
    const namespace = await Namespace.open({ directory: options.directory, interfaces, command });
    const daemon = new Daemon(options, namespace);
    try {
      await daemon.launch();
    } catch (error) {
      await daemon.stop();
      throw error;
    }
    return daemon;
  }

  /** Starts libvirtd again after it has ended; its state and its guests are still there. */
  async launch(): Promise<void> {
    this.pid = await this.#namespace.start();
    await until(
      async () => (await this.#accepts()) || (!this.alive() && (await this.#explainEnd())),
      { what: `${this.driver}'s libvirtd to listen on ${this.socket}`, deadlineMs: 20_000 },
    );
  }

  /** Ends libvirtd in order, leaving its guests, and starts it again. */
  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    await this.launch();
  }

  /** Ends everything: libvirtd, its guests and what else runs in its namespaces. */
  async stop(): Promise<void> {
    await this.#namespace.close();
  }

  /** Sends libvirtd a signal; one that ends it is waited for. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    process.kill(this.pid, signal);
    if (signal === 'SIGKILL' || signal === 'SIGTERM') {
      await until(() => !this.alive(), { what: `${this.driver}'s libvirtd to end` });
    }
  }

  alive(): boolean {
    try {
      return process.kill(this.pid, 0);
    } catch {
      return false;
    }
  }

  /** A path as libvirtd sees it: /run/libvirt/qemu, say, is on a file system of its own. */
  inside(path: string): string {
    return join(`/proc/${this.#namespace.pid}/root`, path);
  }

  virsh(...args: string[]): Promise<Finished> {
    return virsh(this.uri, args);
  }

  admin(...args: string[]): Promise<Finished> {
    return virtAdmin(this.adminSocket, args);
  }

  /** The daemon's own view of who is connected, forwarded identities included. */
  async clientInfo(): Promise<ClientInfo[]> {
    const list = await this.admin('client-list', 'libvirtd');
    const ids = [...list.stdout.matchAll(/^ *(\d+) /gm)].map((match) => match[1]!);
    const answers = await Promise.all(ids.map((id) => this.admin('client-info', 'libvirtd', id)));
    return answers.filter(({ code }) => code === 0).map(({ stdout }) => fields(stdout));
  }

  /** What the daemon has logged so far. */
  log(): Promise<string> {
    return readFile(this.logFile, 'utf8');
  }

  /**
   * How often this function of libvirt's API (`virDomainCreate`) was called in this daemon so far.
   */
  async calls(name: string): Promise<number> {
    return (await this.log()).split(` debug : ${name}:`).length - 1;
  }

  #accepts(): Promise<boolean> {
    return new Promise((resolve) => {
      const connection = createConnection(this.socket);
      connection.on('connect', () => resolve(true));
      connection.on('error', () => resolve(false));
      connection.on('connect', () => connection.destroy());
    });
  }

  async #explainEnd(): Promise<never> {
    const said = await readFile(this.#namespace.errorFile, 'utf8');
    throw new Error(`${this.driver}'s libvirtd ended at once. It said: ${said}`);
  }
}

function configuration({
  directory,
  extraConf = '',
  logFilters = usualFilters,
}: DaemonOptions): string {
  return `
unix_sock_dir = "${directory}"
unix_sock_rw_perms = "0777"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_filters = "${logFilters}"
log_outputs = "1:file:${join(directory, 'log')}"
${extraConf}
`;
}

/** Reads virt-admin's `name : value` lines. */
function fields(text: string): ClientInfo {
  const pairs = [...text.matchAll(/^(\w+) *: ?(.*)$/gm)];
  return Object.fromEntries(pairs.map(([, name, value]) => [name!, value!]));
}
