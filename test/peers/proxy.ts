import { readdirSync, readFileSync } from 'node:fs';
import { chown, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { procedure } from '../../lib/rpc/session-messages.js';
import { ClientProcess, socketUri, type Account } from './clients.js';
import { RawClient } from './raw-client.js';
import { testWorkerUser } from './test-worker-user.js';
import { freshDirectory, until } from './waiting.js';

type ConfValue = string | number | readonly string[];

export interface ProxyOptions {
  /** Made if it does not exist, and removed by `stop` in any case. A fresh one when left out. */
  readonly directory?: string;
  /**
   * Keys of virtproxyd.conf, or lines of it; both come on top of sockets in `directory` without
   * authentication.
   */
  readonly conf?: Readonly<Record<string, ConfValue>> | string;
  /**
   * The text of virtproxyd-cluster.ini. Without `min_workers` there are as many as `workers` says,
   * from the start to the end.
   */
  readonly cluster?: string;
  /** More of the command line. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The most files that each of its processes may have open. */
  readonly openFiles?: number;
  /**
   * Run in session mode as this user: everything is at the default places, below `directory` by way
   * of the XDG variables. Needs root.
   */
  readonly user?: Account;
}

/** Milliseconds that starting and stopping may take on a busy machine. */
const patience = 20_000;

/** Sockets that let everybody in. */
const withoutLogin = { auth_unix_rw: 'none', auth_unix_ro: 'none' };

/** The program to start. */
export const programFile = fileURLToPath(new URL('run-proxy.js', import.meta.url));

/**
 * Starts the program with a command line of the test's own. It is killed when the test process
 * dies.
 */
export function startProgram(
  args: readonly string[],
  options: Pick<ProxyOptions, 'env' | 'user' | 'openFiles'> = {},
): ClientProcess {
  const { openFiles } = options;
  const limit = openFiles === undefined ? [] : ['prlimit', `--nofile=${openFiles}:${openFiles}`];
  const command = [...limit, process.execPath, programFile, ...args];
  return new ClientProcess('setpriv', ['--pdeathsig', 'KILL', '--', ...command], options);
}

/** A process that is running now. */
export interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
  /** The command line, words separated by blanks. */
  readonly command: string;
}

/** All processes of the machine that this one may see. */
export function runningProcesses(): RunningProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        if (state === 'Z') return [];
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0').join(' ').trim();
        return [{ pid: Number(name), parent: Number(parent), command }];
      } catch {
        // It ended while we looked.
        return [];
      }
    });
}

/** Bytes of memory that a process has in use. Throws when it has ended. */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (line === null) throw new Error(`Process ${pid} has ended and is not waited for yet.`);
  return Number(line[1]) * 1024;
}

/** Process ids of the workers of a primary. */
export function workersOf(primary: number): number[] {
  return runningProcesses()
    .filter(({ parent, command }) => parent === primary && command.includes('worker/main.js'))
    .map(({ pid }) => pid);
}

/** The real program, serving. */
export class Proxy {
  readonly socket: string;
  /** There is none in session mode. */
  readonly readOnlySocket: string;
  readonly pidFile: string;
  private stopped: Promise<number | null> | null = null;

  private readonly process: ClientProcess;

  private constructor(
    readonly directory: string,
    { process, runDirectory, pidFile }: Launched,
  ) {
    this.process = process;
    this.socket = join(runDirectory, 'libvirt-sock');
    this.readOnlySocket = `${this.socket}-ro`;
    this.pidFile = pidFile;
  }

  /**
   * Resolves when the first client was answered; rejects with the program's own words when it ends
   * instead.
   */
  static async start(options: ProxyOptions = {}): Promise<Proxy> {
    const directory = options.directory ?? (await freshDirectory());
    await mkdir(directory, { recursive: true });
    const { user } = options;
    const proxy = new Proxy(
      directory,
      user ? await launchSession(directory, user, options) : await launch(directory, options),
    );
    try {
      await proxy.ready();
    } catch (error) {
      await proxy.stop('SIGKILL');
      throw error;
    }
    return proxy;
  }

  get pid(): number {
    return this.process.pid;
  }

  /** Resolves with the exit status when the program ends; null when a signal ended it. */
  get exited(): Promise<number | null> {
    return this.process.finished.then(({ code }) => code);
  }

  /** For virsh and its kin. */
  uri(driver = 'qemu', path?: string): string {
    return socketUri(driver, this.socket, path);
  }

  readOnlyUri(driver = 'qemu'): string {
    return socketUri(driver, this.readOnlySocket);
  }

  /** What it has said on its standard error so far. */
  log(): string {
    return this.process.stderr;
  }

  /** Process ids of its workers. */
  workers(): number[] {
    return workersOf(this.pid);
  }

  /** A raw client that has opened `uri`. */
  open(uri: string | null = 'qemu:///system', flags = 0): Promise<RawClient> {
    return RawClient.open(this.socket, uri, flags);
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /**
   * Ends the program, by force if it takes too long, and removes the directory. The exit status is
   * null then.
   */
  stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.stopped ??= this.end(signal);
    return this.stopped;
  }

  private async end(signal: NodeJS.Signals): Promise<number | null> {
    const workers = this.workers();
    const force = setTimeout(() => void this.process.kill('SIGKILL'), patience);
    const { code } = await this.process.kill(signal);
    clearTimeout(force);
    await until(() => !runningProcesses().some(({ pid }) => workers.includes(pid)), {
      what: 'the workers to end with their primary',
    });
    await rm(this.directory, { recursive: true, force: true });
    return code;
  }

  private async ready(): Promise<void> {
    let end: string | null = null;
    this.process.finished.then(
      () => (end = this.log()),
      (error: unknown) => (end = String(error)),
    );
    const isServed = async (): Promise<boolean> => {
      if (end !== null) throw new Error(`virtproxyd ended at once. It said: ${end}`);
      const client = await RawClient.connect(this.socket).catch(() => null);
      const reply = await client?.call(procedure.authList).catch(() => null);
      client?.destroy();
      return reply !== null && reply !== undefined;
    };
    await until(isServed, { what: `virtproxyd to serve on ${this.socket}`, deadlineMs: patience });
  }
}

interface Launched {
  readonly process: ClientProcess;
  readonly runDirectory: string;
  readonly pidFile: string;
}

async function launch(directory: string, options: ProxyOptions): Promise<Launched> {
  const conf = join(directory, 'virtproxyd.conf');
  const pidFile = join(directory, 'virtproxyd.pid');
  const places = { unix_sock_dir: directory };
  await writeFile(conf, confText({ ...places, ...withoutLogin }, options.conf));
  const cluster = withWorkerUser(withAllWorkers(options.cluster));
  await writeFile(join(directory, 'virtproxyd-cluster.ini'), cluster);
  const args = ['-f', conf, '-p', pidFile, ...(options.args ?? [])];
  return { process: startProgram(args, options), runDirectory: directory, pidFile };
}

/** The cluster's file with the worker_user of this run, if there is one. */
function withWorkerUser(cluster: string): string {
  const user = testWorkerUser();
  if (user === null || /^worker_user\b/m.test(cluster)) return cluster;
  const line = `worker_user = ${user.name}\n`;
  return /^\[cluster\]$/m.test(cluster)
    ? cluster.replace(/^\[cluster\]\n/m, (section) => section + line)
    : `[cluster]\n${line}${cluster}`;
}

/** The environment of a user's session whose directories all lie in `directory`. */
export function sessionEnvironment(directory: string): Record<string, string> {
  return {
    HOME: join(directory, 'home'),
    XDG_RUNTIME_DIR: join(directory, 'run'),
    XDG_CONFIG_HOME: join(directory, 'config'),
    XDG_CACHE_HOME: join(directory, 'cache'),
    XDG_DATA_HOME: join(directory, 'data'),
  };
}

async function launchSession(
  directory: string,
  user: Account,
  options: ProxyOptions,
): Promise<Launched> {
  const session = sessionEnvironment(directory);
  for (const path of [directory, ...Object.values(session), join(directory, 'config/libvirt')]) {
    await mkdir(path, { recursive: true });
    await chown(path, user.uid, user.gid);
  }
  const configuration = join(directory, 'config/libvirt');
  await writeFile(join(configuration, 'virtproxyd.conf'), confText({}, options.conf));
  await writeFile(join(configuration, 'virtproxyd-cluster.ini'), withAllWorkers(options.cluster));
  const runDirectory = join(directory, 'run/libvirt');
  return {
    process: startProgram(options.args ?? [], { user, env: { ...session, ...options.env } }),
    runDirectory,
    pidFile: join(runDirectory, 'virtproxyd.pid'),
  };
}

/** A cluster's ini file, with all the workers at any time unless it says `min_workers` itself. */
export function withAllWorkers(cluster = ''): string {
  if (/^\s*min_workers\s*=/m.test(cluster)) return cluster;
  const workers = /^\s*workers\s*=\s*(\S+)/m.exec(cluster)?.[1] ?? 'auto';
  return `${cluster}\n[cluster]\nmin_workers = ${workers}\n`;
}

function confText(
  defaults: Readonly<Record<string, ConfValue>>,
  conf: NonNullable<ProxyOptions['conf']> = {},
): string {
  const values = typeof conf === 'string' ? defaults : { ...defaults, ...conf };
  const lines = Object.entries(values).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
  return lines.join('') + (typeof conf === 'string' ? conf : '');
}
