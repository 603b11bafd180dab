import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A user of this machine, as /etc/passwd has it. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

export interface ClientOptions {
  /** What the program finds on its standard input, which it may also open again as /dev/stdin. */
  readonly input?: string | Buffer;
  /**
   * Milliseconds after which the program is killed; when left out, 30 000 in `run` and never
   * elsewhere.
   */
  readonly timeoutMs?: number;
  /** Run as this user, without supplementary groups. Needs root. */
  readonly user?: Account;
  /** Added to the program's otherwise minimal environment. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * Give the program a terminal of its own, as `virsh console` demands; its stderr is then part of
   * stdout.
   */
  readonly terminal?: boolean;
}

export interface Finished {
  /** Exit status; null when a signal ended the program. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A search path that has the system's daemons too, which a non-root shell's often lacks. */
export const searchPath = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;

/** Looks a user up in /etc/passwd; throws when there is none of that name. */
export function account(name: string): Account {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const fields = line.split(':');
    if (fields[0] === name) return { name, uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  throw new Error(`There is no user '${name}' in /etc/passwd.`);
}

/** A program that was started and whose output can be watched while it runs. */
export class ClientProcess {
  stdout = '';
  stderr = '';
  /** Resolves when the program has ended and all its output has arrived. */
  readonly finished: Promise<Finished>;
  readonly #child: ChildProcess;

  constructor(program: string, args: readonly string[], options: ClientOptions = {}) {
    const [file, ...rest] = options.terminal ? onTerminal([program, ...args]) : [program, ...args];
    const owner = options.user && { uid: options.user.uid, gid: options.user.gid };
    const input = options.input === undefined ? 'pipe' : openedFile(options.input);
    this.#child = spawn(file, rest, {
      ...owner,
      cwd: '/',
      env: { PATH: searchPath, LC_ALL: 'C.UTF-8', HOME: '/nonexistent', ...options.env },
      stdio: [input, 'pipe', 'pipe'],
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
    });
    if (input !== 'pipe') closeSync(input);
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    // A program that ends without reading its input is no error of the test.
    this.#child.stdin?.on('error', () => undefined);
    this.finished = this.#run();
    this.finished.catch(() => undefined);
  }

  /** Process id, which is also what SO_PEERCRED shows a daemon unless `terminal` was asked for. */
  get pid(): number {
    return this.#child.pid ?? -1;
  }

  write(text: string | Buffer): void {
    this.#child.stdin?.write(text);
  }

  /** Closes the program's standard input. */
  end(): void {
    this.#child.stdin?.end();
  }

  /** Sends a signal and waits for the end. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Finished> {
    this.#child.kill(signal);
    return await this.finished;
  }

  async #run(): Promise<Finished> {
    const [code] = (await once(this.#child, 'close')) as [number | null];
    return { code, stdout: this.stdout, stderr: this.stderr };
  }
}

/** Runs a program to its end. Rejects when it cannot be started, is killed or outlasts its time. */
export async function run(
  program: string,
  args: readonly string[],
  options: ClientOptions = {},
): Promise<Finished> {
  const client = new ClientProcess(program, args, { timeoutMs: 30_000, ...options });
  client.end();
  const finished = await client.finished;
  if (finished.code === null) {
    const said = `${finished.stdout}${finished.stderr}`.trim();
    throw new Error(`${program} ${args.join(' ')}: killed, or out of time. It said: ${said}`);
  }
  return finished;
}

/** virsh on the connection `uri`; `-r` and the like go in front of the command in `args`. */
export function virsh(
  uri: string,
  args: readonly string[],
  options?: ClientOptions,
): Promise<Finished> {
  return run('virsh', ['--quiet', '--connect', uri, ...args], options);
}

/** A Python script with libvirt's binding at hand; `args` are its sys.argv from 1 on. */
export function python(
  script: string,
  args: readonly string[] = [],
  options?: ClientOptions,
): Promise<Finished> {
  return run(pythonProgram, ['-u', '-c', script, ...args], options);
}

/** A Python script that is left running, for events and for connections held open. */
export function startPython(
  script: string,
  args: readonly string[] = [],
  options?: ClientOptions,
): ClientProcess {
  return new ClientProcess(pythonProgram, ['-u', '-c', script, ...args], options);
}

/** virt-admin on a daemon's admin socket, wherever that is. */
export function virtAdmin(
  socket: string,
  args: readonly string[],
  options?: ClientOptions,
): Promise<Finished> {
  const uri = `libvirtd+unix:///system?socket=${socket}`;
  return run('virt-admin', ['--quiet', '--connect', uri, ...args], options);
}

/**
 * The URI that makes a libvirt client use exactly this socket. `path` is /default for the test
 * driver.
 */
export function socketUri(driver: string, socket: string, path = '/system'): string {
  return `${driver}+unix://${path}?socket=${socket}`;
}

/** The interpreter that Debian's python3-libvirt belongs to, whatever else is first on PATH. */
export const pythonProgram = '/usr/bin/python3';

/**
 * A file without a name: unlike the socket that Node makes of a pipe, it can be opened as
 * /dev/stdin.
 */
function openedFile(content: string | Buffer): number {
  const directory = mkdtempSync(join(tmpdir(), 'vp-'));
  const path = join(directory, 'input');
  writeFileSync(path, content);
  const descriptor = openSync(path, 'r');
  rmSync(directory, { recursive: true });
  return descriptor;
}

function onTerminal(command: readonly string[]): [string, ...string[]] {
  const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
  return ['script', '--quiet', '--return', '--flush', '--command', quoted, '/dev/null'];
}
