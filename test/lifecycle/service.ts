import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Authority, purpose, type CertificateFiles } from '../peers/certificates.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, withAllWorkers, type ProxyOptions } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { Stress, type Entrance, type StressOptions, type StressReport } from '../peers/stress.js';
import { StressDaemon } from '../peers/stress-daemon.js';
import { run } from '../peers/clients.js';
import { connectTcp, connectTls } from '../peers/remote-client.js';
import { freshDirectory, until } from '../peers/waiting.js';

type Conf = Record<string, string | number | readonly string[]>;

export interface ServiceOptions extends Pick<ProxyOptions, 'args' | 'env' | 'openFiles'> {
  /** Keys on top of sockets in the directory that ask for no login. */
  readonly conf?: Conf;
  /** Lines of [cluster]. */
  readonly cluster?: string;
  /** Listens on TCP and TLS as well. */
  readonly remote?: boolean;
}

/** Tells the processes of one service, its workers and successors from all others. */
export const serviceMarker = 'STRESS_SERVICE';

/** Milliseconds that an idle machine takes to start node. */
const nodeStartTime = 60;

/** Milliseconds that a change may take on a busy machine. */
const patience = 20_000;

/** Files that TLS needs, of one authority. */
export interface Credentials {
  readonly authority: Authority;
  readonly server: CertificateFiles;
  readonly client: CertificateFiles;
  /** For `pkipath=`. */
  readonly pki: string;
}

/**
 * The program with stand-in daemons behind it, whichever of its processes is the primary one now.
 */
export class Service {
  readonly entrances: readonly Entrance[];
  readonly confFile: string;
  private readonly stresses: Stress[] = [];

  private constructor(
    readonly directory: string,
    readonly proxy: Proxy,
    readonly daemon: StressDaemon,
    readonly conf: Conf,
    readonly credentials: Credentials | null,
    private readonly descriptorsBefore: number,
  ) {
    this.confFile = join(proxy.directory, 'virtproxyd.conf');
    this.entrances = [unixEntrance(proxy), ...remoteEntrances(conf, credentials)];
  }

  static async start(options: ServiceOptions = {}): Promise<Service> {
    const descriptorsBefore = openDescriptors(process.pid);
    const directory = await freshDirectory();
    const daemon = await StressDaemon.listen(directory);
    const credentials = options.remote ? await makeCredentials(directory) : null;
    const run = join(directory, 'run');
    const conf = {
      unix_sock_dir: run,
      auth_unix_rw: 'none',
      auth_unix_ro: 'none',
      ...(credentials && (await remoteConf(credentials))),
      ...options.conf,
    };
    const proxy = await Proxy.start({
      directory: run,
      conf,
      cluster: clusterText(daemon, options.cluster),
      args: ['--verbose', ...(options.args ?? [])],
      ...(options.openFiles !== undefined && { openFiles: options.openFiles }),
      env: { [serviceMarker]: directory, ...options.env },
    });
    return new Service(directory, proxy, daemon, conf, credentials, descriptorsBefore);
  }

  /** The primary process of now. */
  get pid(): number {
    return Number(readFileSync(this.proxy.pidFile, 'utf8'));
  }

  /** Permissions of the read-write socket. */
  socketMode(): number {
    return statSync(this.proxy.socket).mode & 0o777;
  }

  /** Everything that the service's processes have said. */
  log(): string {
    return this.proxy.log();
  }

  /** Lines of the log that match. */
  logged(pattern: RegExp): string[] {
    return this.log()
      .split('\n')
      .filter((line) => pattern.test(line));
  }

  /** Resolves when there are `count` lines in the log that match. */
  async says(pattern: RegExp, count = 1, deadlineMs = patience): Promise<void> {
    await until(() => this.logged(pattern).length >= count, {
      what: `the log to have ${count} of ${String(pattern)}. It is:\n${this.log()}`,
      deadlineMs,
    }).catch((error: unknown) => {
      throw new Error(`${(error as Error).message.split('\n')[0] ?? ''}\n${this.log()}`);
    });
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Replaces the configuration file; keys with undefined are left out. */
  async configure(conf: Readonly<Record<string, Conf[string] | undefined>>): Promise<void> {
    const lines = Object.entries({ ...this.conf, ...conf })
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
    await writeFile(this.confFile, lines.join(''));
  }

  async configureCluster(lines: string): Promise<void> {
    const file = join(this.proxy.directory, 'virtproxyd-cluster.ini');
    await writeFile(file, withAllWorkers(clusterText(this.daemon, lines)));
  }

  /** Reloads and resolves when the new generation serves. */
  async reload(): Promise<void> {
    const before = this.logged(reloaded).length;
    this.signal('SIGHUP');
    await this.says(reloaded, before + 1);
  }

  /** Resolves with the pid of the new version once that is the primary process. */
  async upgrade(): Promise<number> {
    const before = this.pid;
    this.signal('SIGUSR2');
    await until(() => this.pid !== before && this.pid !== 0, {
      what: 'the new version to take over',
      deadlineMs: patience,
    });
    return this.pid;
  }

  async stress(options: Partial<StressOptions> = {}): Promise<Stress> {
    const { daemon, entrances } = this;
    const stress = await Stress.start({ daemon, entrances, ...options });
    this.stresses.push(stress);
    return stress;
  }

  /** Resolves with the pids of its workers that are ready, when there are `count`. */
  async readyWorkers(count: number): Promise<number[]> {
    const ready = (): number[] => {
      const said = this.logged(/worker \d+ of generation \d+ is ready/);
      const pids = said.map((line) => Number(/worker (\d+) of/.exec(line)?.[1]));
      const running = this.processes();
      return pids.filter((pid) => running.includes(pid));
    };
    await until(() => ready().length >= count, {
      what: `${count} workers to be ready`,
      deadlineMs: patience,
    });
    return ready();
  }

  /** Its processes, all generations and versions. */
  processes(): number[] {
    return processesWith(`${serviceMarker}=${this.directory}`);
  }

  /**
   * Ends it in good order and removes its directory. Rejects when anything is left over: a process,
   * a socket, a PID file; and, unless other services run beside it, a descriptor here.
   */
  async end({ alone = true } = {}): Promise<void> {
    const processes = this.processes();
    try {
      await Promise.all(this.stresses.map((stress) => stress.stop()));
      if (processes.length > 0) this.askToEnd();
      await this.isGone();
    } finally {
      for (const pid of this.processes()) process.kill(pid, 'SIGKILL');
      await this.proxy.stop('SIGKILL');
      await this.daemon.stop();
      await rm(this.directory, { recursive: true, force: true });
    }
    if (!alone) return;
    await until(() => openDescriptors(process.pid) <= this.descriptorsBefore, {
      what: 'all descriptors of the test to be closed',
    });
  }

  private askToEnd(): void {
    try {
      this.signal('SIGTERM');
    } catch (error) {
      // It may have come to its end by --timeout at this very moment: no PID file, or no process,
      // any more.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ESRCH') throw error;
    }
  }

  /** Removes what a primary process leaves that could not end in good order. */
  async forgetFiles(): Promise<void> {
    for (const name of await readdir(this.proxy.directory)) {
      if (!isConfiguration(name)) await rm(join(this.proxy.directory, name));
    }
  }

  /** Resolves when no process runs and no file is left but the configuration. */
  async isGone(): Promise<void> {
    await until(() => this.processes().length === 0, {
      what: 'all processes to end',
      deadlineMs: patience,
    });
    const left = (await readdir(this.proxy.directory)).filter(
      (name) => !/\.(conf|ini)$/.test(name),
    );
    if (left.length > 0) throw new Error(`These files are left over: ${left.join(', ')}`);
  }
}

const isConfiguration = (name: string): boolean => /\.(conf|ini)$/.test(name);

const reloaded = /reloaded: generation \d+ serves/;

/** What the descriptors of a process are, as the kernel names it. */
export function descriptorsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // It was closed while we looked.
      return [];
    }
  });
}

/**
 * How many descriptors a process has open, without the one that node keeps for when it has no other
 * and those that it reads other processes' figures by.
 */
export function openDescriptors(pid: number): number {
  return descriptorsOf(pid).filter((target) => !/^\/(dev\/null|proc\/)/.test(target)).length;
}

/** Milliseconds that something may take which takes `fair` on a machine with nothing else to do. */
export async function fairTime(fair: number): Promise<number> {
  const start = performance.now();
  await run(process.execPath, ['-e', '0']);
  return fair * Math.max(1, (performance.now() - start) / nodeStartTime);
}

/** Losses as text, for messages of a failed test. */
export function lossesOf({ losses }: StressReport): string[] {
  return losses.map(
    ({ actor, kind, what, worker }) => `${actor}: ${kind}: ${what} (worker ${worker ?? 'unknown'})`,
  );
}

function clusterText(daemon: StressDaemon, lines = ''): string {
  return `${daemon.routes}[cluster]\nworkers = 2\n${lines}`;
}

/** Process ids of those that have `NAME=VALUE` in their environment. */
export function processesWith(variable: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(variable);
      } catch {
        // It ended while we looked.
        return false;
      }
    })
    .map(Number);
}

async function makeCredentials(parent: string): Promise<Credentials> {
  const directory = await mkdtemp(join(parent, 'pki-'));
  const authority = Authority.create(directory, 'authority');
  const server = authority.issue('server', { purpose: purpose.server });
  const client = authority.issue('client');
  const pki = await authority.pkiDirectory('client-pki', client);
  await mkdir(join(directory, 'crl'));
  return { authority, server, client, pki };
}

async function remoteConf({ authority, server }: Credentials): Promise<Conf> {
  const [tcp, tls] = await freePorts(2);
  return {
    listen_addr: '127.0.0.1',
    listen_tcp: 1,
    tcp_port: String(tcp),
    auth_tcp: 'none',
    listen_tls: 1,
    tls_port: String(tls),
    ca_file: authority.cert,
    cert_file: server.cert,
    key_file: server.key,
  };
}

function unixEntrance(proxy: Proxy): Entrance {
  const connect = (): Promise<RawClient> => RawClient.connect(proxy.socket);
  return { name: 'unix', uri: proxy.uri(), connect };
}

function remoteEntrances(conf: Conf, credentials: Credentials | null): Entrance[] {
  if (credentials === null) return [];
  const { authority, client, pki } = credentials;
  const tls = Number(conf['tls_port']);
  return [
    tcpEntrance(Number(conf['tcp_port'])),
    {
      name: 'tls',
      uri: `qemu+tls://127.0.0.1:${tls}/system?pkipath=${pki}`,
      connect: () => connectTls({ port: tls, ca: authority.cert, certificate: client }),
    },
  ];
}

/** The way in over plain TCP on the loopback interface. */
export function tcpEntrance(port: number): Entrance {
  return {
    name: 'tcp',
    uri: `qemu+tcp://127.0.0.1:${port}/system`,
    connect: () => connectTcp(port),
  };
}
