/**
 * A message bus and a polkitd of the tests' own, beside the machine's: the bus listens in a fresh
 * directory, and polkitd sees that directory's rules and actions through a mount namespace.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createClient, DBusError, type MessageBus } from 'dbus-native';

const polkitd = '/usr/lib/polkit-1/polkitd';
const policyFile = new URL('../../../conf/polkit/org.libvirt.unix.policy', import.meta.url);
const authorityName = 'org.freedesktop.PolicyKit1';
const authorityPath = '/org/freedesktop/PolicyKit1/Authority';
const authorityInterface = 'org.freedesktop.PolicyKit1.Authority';
const startDeadlineMs = 10_000;

export interface PolkitHostOptions {
  /** The text of a rules file (polkit(8)); without it there is a bus but no polkitd. */
  rules?: string;
}

export class PolkitHost {
  readonly directory: string;
  readonly busAddress: string;
  #bus: ChildProcess | undefined;
  #polkitd: ChildProcess | undefined;

  private constructor(directory: string) {
    this.directory = directory;
    this.busAddress = `unix:path=${directory}/bus.sock`;
  }

  /** What this machine lacks to run one, as a phrase for a test's title. */
  static missing(): string | undefined {
    if (process.getuid?.() !== 0) return 'needs root';
    for (const program of ['/usr/bin/dbus-daemon', polkitd]) {
      if (!existsSync(program)) return `needs ${program}`;
    }
    if (spawnSync('unshare', ['-m', 'setpriv', '--pdeathsig', 'KILL', 'true']).status !== 0) {
      return 'needs unshare -m and setpriv';
    }
    return undefined;
  }

  static async start(options: PolkitHostOptions = {}): Promise<PolkitHost> {
    const directory = await mkdtemp(join(tmpdir(), 'polkit-host-'));
    const host = new PolkitHost(directory);
    try {
      // polkitd is not root when it connects and reads.
      await chmod(directory, 0o755);
      for (const name of ['rules', 'no-rules', 'actions']) await mkdir(join(directory, name));
      await copyFile(policyFile, join(directory, 'actions', 'org.libvirt.unix.policy'));
      await writeFile(join(directory, 'bus.conf'), busConfiguration(directory));
      await host.startBus();
      if (options.rules !== undefined) await host.startPolkitd(options.rules);
    } catch (error) {
      await host.stop();
      throw error;
    }
    return host;
  }

  async startBus(): Promise<void> {
    const configuration = `--config-file=${this.directory}/bus.conf`;
    this.#bus = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', 'dbus-daemon', configuration, '--nofork', '--print-address=1'],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const address = once(this.#bus.stdout!, 'data');
    const exit = once(this.#bus, 'exit').then(() => {
      throw new Error('dbus-daemon ended at its start.');
    });
    await Promise.race([address, exit]);
    exit.catch(() => undefined);
  }

  /** Freezes the bus or lets it go on: it stays connected but answers nothing. */
  freezeBus(frozen: boolean): void {
    this.#bus?.kill(frozen ? 'SIGSTOP' : 'SIGCONT');
  }

  /** polkitd ends with its bus. */
  async stopBus(): Promise<void> {
    await end(this.#bus);
    await end(this.#polkitd);
  }

  async startPolkitd(rules: string): Promise<void> {
    await writeFile(join(this.directory, 'rules', '10-test.rules'), rules);
    const script =
      'mount --bind "$0/rules" /etc/polkit-1/rules.d && ' +
      'mount --bind "$0/no-rules" /usr/share/polkit-1/rules.d && ' +
      `mount --bind "$0/actions" /usr/share/polkit-1/actions && exec ${polkitd} --no-debug`;
    // No parent-death signal: changing its user clears it. Losing the bus ends polkitd.
    this.#polkitd = spawn('unshare', ['-m', 'sh', '-c', script, this.directory], {
      stdio: 'ignore',
      env: { ...process.env, DBUS_SYSTEM_BUS_ADDRESS: this.busAddress },
    });
    const client = connectTo(this.busAddress);
    try {
      const deadline = Date.now() + startDeadlineMs;
      while (!(await client.nameHasOwner(authorityName))) {
        if (this.#polkitd.exitCode !== null || Date.now() > deadline) {
          throw new Error(`polkitd did not come up on ${this.busAddress}.`);
        }
        await pause(10);
      }
    } finally {
      await client.close();
    }
  }

  async stopPolkitd(): Promise<void> {
    await end(this.#polkitd);
  }

  async stop(): Promise<void> {
    await this.stopPolkitd();
    await this.stopBus();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** A process of another user, for polkit to judge. */
export class Subject {
  readonly pid: number;
  readonly uid: number;
  readonly startTime: bigint;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, uid: number) {
    this.#process = process;
    this.pid = process.pid!;
    this.uid = uid;
    const stat = readFileSync(`/proc/${this.pid}/stat`, 'latin1');
    // Field 22; the command's name, field 2, may hold anything, but nothing after it a parenthesis.
    this.startTime = BigInt(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!);
  }

  /** `user` is a name of /etc/passwd. */
  static async start(user: string): Promise<Subject> {
    const passwd = readFileSync('/etc/passwd', 'utf8').split('\n');
    const [, , uid, gid] = passwd.find((line) => line.startsWith(`${user}:`))!.split(':');
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'sleep', '600'], {
      uid: Number(uid),
      gid: Number(gid),
      stdio: 'ignore',
    });
    await once(child, 'spawn');
    return new Subject(child, Number(uid));
  }

  async stop(): Promise<void> {
    await end(this.#process);
  }
}

/** Takes polkitd's name on the bus, notes every call and answers no check. */
export class SilentAuthority {
  /** The cancellation ids of CheckAuthorization and CancelCheckAuthorization, as they came. */
  readonly checked: string[] = [];
  readonly cancelled: string[] = [];
  /** The subjects of the checks, as dbus-native reads them. */
  readonly subjects: unknown[] = [];
  readonly #bus: MessageBus;

  private constructor(bus: MessageBus) {
    this.#bus = bus;
  }

  static async start(busAddress: string): Promise<SilentAuthority> {
    const bus = connectTo(busAddress);
    const silent = new SilentAuthority(bus);
    const methods = {
      CheckAuthorization: (
        subject: unknown,
        _action: string,
        _d: unknown,
        _f: number,
        id: string,
      ) => {
        silent.subjects.push(subject);
        silent.checked.push(id);
        return new Promise(() => undefined);
      },
      CancelCheckAuthorization: (id: string) => {
        silent.cancelled.push(id);
        return null;
      },
    };
    bus.exportInterface(methods, authorityPath, {
      name: authorityInterface,
      methods: {
        CheckAuthorization: ['(sa{sv})sa{ss}us', '(bba{ss})', [], []],
        CancelCheckAuthorization: ['s', '', [], []],
      },
    });
    await bus.requestName(authorityName, 0);
    return silent;
  }

  async stop(): Promise<void> {
    await this.#bus.close();
  }
}

export type AgentAnswer = 'accept' | 'dismiss' | 'hang';

/** The window that asks for a password: polkit's authentication agent for one subject. */
export class Agent {
  /** How many dialogs polkitd opened and took down again. */
  opened = 0;
  withdrawn = 0;
  answer: AgentAnswer;
  readonly #bus: MessageBus;

  private constructor(bus: MessageBus, answer: AgentAnswer) {
    this.#bus = bus;
    this.answer = answer;
  }

  static async start(busAddress: string, subject: Subject, answer: AgentAnswer): Promise<Agent> {
    const bus = connectTo(busAddress);
    const agent = new Agent(bus, answer);
    bus.exportInterface(agent.#methods(), '/agent', {
      name: 'org.freedesktop.PolicyKit1.AuthenticationAgent',
      methods: {
        BeginAuthentication: ['sssa{ss}sa(sa{sv})', '', [], []],
        CancelAuthentication: ['s', '', [], []],
      },
    });
    const identity = [
      ['pid', ['u', subject.pid]],
      ['start-time', ['t', subject.startTime]],
    ];
    await agent.#call('RegisterAuthenticationAgent', '(sa{sv})ss', [
      ['unix-process', identity],
      'C',
      '/agent',
    ]);
    return agent;
  }

  #methods() {
    return {
      BeginAuthentication: async (...[, , , , cookie]: unknown[]) => {
        this.opened++;
        if (this.answer === 'hang') return new Promise(() => undefined);
        if (this.answer === 'dismiss') {
          const error = new DBusError('dismissed');
          error.dbusName = 'org.freedesktop.PolicyKit1.Error.Cancelled';
          throw error;
        }
        const root = ['unix-user', [['uid', ['u', 0]]]];
        await this.#call('AuthenticationAgentResponse2', 'us(sa{sv})', [0, cookie, root]);
        return null;
      },
      CancelAuthentication: () => {
        this.withdrawn++;
        return null;
      },
    };
  }

  async #call(member: string, signature: string, body: unknown[]): Promise<void> {
    await this.#bus.invoke({
      destination: authorityName,
      path: authorityPath,
      interface: authorityInterface,
      member,
      signature,
      body,
    });
  }

  async stop(): Promise<void> {
    await this.#bus.close();
  }
}

/** Something else at the bus's path: says `reply` to whatever comes first, or closes on null. */
export async function startStranger(path: string, reply: string | null): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      if (reply === null) socket.destroy();
      else socket.write(reply);
    });
  }).listen(path);
  await once(server, 'listening');
  return server;
}

/** Polls for a condition that a peer's next steps make true; throws after 5 s. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`Not within 5 s: ${condition.toString()}`);
    await pause(5);
  }
}

function connectTo(busAddress: string): MessageBus {
  const bus = createClient({ busAddress, authMethods: ['EXTERNAL'], plainValues: true });
  bus.connection.on('error', () => undefined);
  return bus;
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

function busConfiguration(directory: string): string {
  return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <auth>EXTERNAL</auth>
  <listen>unix:path=${directory}/bus.sock</listen>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true" receive_type="method_return"/>
    <allow receive_requested_reply="true" receive_type="error"/>
  </policy>
  <policy user="root"><allow own="${authorityName}"/></policy>
  <policy user="polkitd"><allow own="${authorityName}"/></policy>
</busconfig>
`;
}
