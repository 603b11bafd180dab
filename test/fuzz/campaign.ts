import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { openDescriptors } from '../lifecycle/service.js';
import { secondaryDrivers } from '../../lib/rpc/procedures.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { FrameSocket } from '../peers/frame-socket.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, residentBytes } from '../peers/proxy.js';
import { clientHello } from '../peers/remote-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { Bystander } from './bystander.js';
import { playClient, type FuzzEntrance } from './fuzzed-client.js';
import { FuzzedDaemon } from './fuzzed-daemon.js';
import { JudgingDaemon } from './judging-daemon.js';
import { LaneClient } from './lane-client.js';
import { Random } from './random.js';

/** The hypervisor behind which fuzzed clients come, and those whose daemons are fuzzed. */
const judgedDriver = 'ch';
const fuzzedDrivers = ['xen', 'lxc', 'bhyve'] as const;

/** Fuzzed clients at a time. */
const clientLanes = 8;

/** Bytes that a worker may have in use at the worst moment: what its connections may hold at their limits, and garbage. */
const mostMemory = 400 * 1024 * 1024;

/** Milliseconds between looks at the proxy's processes. */
const lookInterval = 250;

/** Milliseconds in which everything is to be as before once the fuzzed peers have left. */
const patience = 20_000;

export interface CampaignOptions {
  readonly seed: string;
  readonly seconds: number;
  /** Sessions by name, `LANE:NUMBER`: these alone are played, each once. */
  readonly only?: readonly string[];
}

export interface CampaignReport {
  /** What went wrong, each with the sessions in which it did; empty when nothing did. */
  readonly findings: readonly string[];
  readonly sessions: number;
  /** Of fuzzed clients, and those of fuzzed daemons that were wrong. */
  readonly frames: number;
  readonly daemonFaults: number;
  /** Frames that reached a daemon and were judged. */
  readonly judged: number;
  /** Calls of the healthy client, and their latencies in milliseconds. */
  readonly healthyCalls: number;
  readonly healthyMedian: number;
  readonly healthyP99: number;
  /** Most bytes that a worker was seen to have in use. */
  readonly mostMemory: number;
}

/** The proxy between fuzzed clients and fuzzed daemons, with a healthy client and daemons that judge beside them. */
export class Campaign {
  private readonly findings = new Set<string>();
  /** The sessions that are played now, by lane, each with the one before it. */
  private readonly current = new Map<string, string[]>();
  private sessions = 0;
  private frames = 0;
  private highestMemory = 0;

  private constructor(
    private readonly options: CampaignOptions,
    private readonly directory: string,
    private readonly proxy: Proxy,
    private readonly entrances: readonly FuzzEntrance[],
    private readonly judges: readonly JudgingDaemon[],
    private readonly fuzzed: readonly FuzzedDaemon[],
    found: { condemn: (why: string) => void },
  ) {
    found.condemn = (why) => this.condemn(why);
  }

  static async run(options: CampaignOptions): Promise<CampaignReport> {
    const campaign = await Campaign.prepare(options);
    try {
      return await campaign.play();
    } finally {
      await campaign.end();
    }
  }

  private static async prepare(options: CampaignOptions): Promise<Campaign> {
    const directory = await freshDirectory();
    const found: { condemn: (why: string) => void } = { condemn: () => undefined };
    const fuzzed = await Promise.all(
      fuzzedDrivers.map((driver) => FuzzedDaemon.listen(join(directory, driver))),
    );
    const takeOver = (connection: FrameSocket, userName: string): boolean => {
      const lane = fuzzed[Number(userName.replace('lane-', ''))];
      lane?.play(connection, 'secondary');
      return lane !== undefined;
    };
    const judges = await Promise.all(
      ['qemu', judgedDriver, ...secondaryDrivers].flatMap((driver) =>
        [false, true].map((readOnly) =>
          JudgingDaemon.listen(join(directory, readOnly ? `${driver}-ro` : driver), {
            driver: secondaryDrivers.find((each) => each === driver) ?? null,
            readOnly,
            condemn: (why) =>
              found.condemn(`a daemon was sent what it should not have been: ${why}`),
            takeOver,
          }),
        ),
      ),
    );
    const drivers = ['qemu', judgedDriver, ...secondaryDrivers, ...fuzzedDrivers];
    const routes = drivers.map((driver) => `${driver} = ${join(directory, driver)}\n`);
    const remote = await remoteEntrances(directory);
    const run = join(directory, 'run');
    await mkdir(run);
    const proxy = await Proxy.start({
      directory: run,
      conf: { ...remote.conf, max_clients: 200, max_anonymous_clients: 20 },
      cluster: `[routes]\n${routes.join('')}[cluster]\nworkers = 2\nopen_timeout = 5\nlogin_timeout = 20\n`,
      env: remote.env,
    });
    const local = (name: string, path: string): FuzzEntrance => ({
      name,
      strangers: false,
      connect: () => FrameSocket.connectSocket(path),
    });
    const entrances = [local('unix', proxy.socket), ...remote.entrances];
    // In session mode there is no read-only socket.
    if (isRoot) entrances.push(local('unix-ro', proxy.readOnlySocket));
    return new Campaign(options, directory, proxy, entrances, judges, fuzzed, found);
  }

  private async play(): Promise<CampaignReport> {
    await until(() => this.proxy.workers().length === 2, { what: 'the workers' });
    const workers = this.proxy.workers();
    const bystander = new Bystander(this.proxy.socket, 'qemu', (why) => this.condemn(why));
    await until(() => bystander.latencies.length > 50, { what: 'the healthy client' });
    const before = [this.proxy.pid, ...workers].map(openDescriptors);
    const watch = setInterval(() => this.look(workers), lookInterval);
    await this.playAll();
    clearInterval(watch);
    this.look(workers);
    await this.expectQuiet(workers, before);
    await bystander.stop();
    return this.report(bystander.latencies.sort((one, other) => one - other));
  }

  private async playAll(): Promise<void> {
    const { options } = this;
    if (options.only !== undefined) {
      for (const name of options.only) await this.playOne(name);
      return;
    }
    const end = performance.now() + options.seconds * 1000;
    const lanes = [
      ...Array.from({ length: clientLanes }, (_, number) => `client${number}`),
      ...fuzzedDrivers.map((_, number) => `daemon${number}`),
    ];
    await Promise.all(
      lanes.map(async (lane) => {
        for (let number = 0; performance.now() < end && this.findings.size === 0; number++) {
          await this.playOne(`${lane}:${number}`);
        }
      }),
    );
  }

  private async playOne(name: string): Promise<void> {
    const [lane = ''] = name.split(':');
    const seed = `${this.options.seed}/${name}`;
    const random = new Random(seed);
    this.current.set(lane, [...(this.current.get(lane) ?? []).slice(-1), name]);
    this.sessions++;
    try {
      if (lane.startsWith('client')) await this.playClient(random);
      else await this.playDaemon(random, seed, Number(lane.replace('daemon', '')));
    } catch (error) {
      this.condemn(`${name} failed: ${String(error)}`);
    }
  }

  private async playClient(random: Random): Promise<void> {
    const entrance = random.pick(this.entrances);
    const frames = await playClient(random, entrance, judgedDriver, (why) => {
      this.condemn(`${entrance.name}: ${why}`);
    });
    this.frames += frames;
  }

  private async playDaemon(random: Random, seed: string, number: number): Promise<void> {
    const daemon = this.fuzzed[number]!;
    daemon.seed = seed;
    const frames = await LaneClient.play(random, {
      socket: this.proxy.socket,
      driver: fuzzedDrivers[number]!,
      userName: isRoot ? `lane-${number}` : null,
      condemn: (why) => this.condemn(why),
    });
    this.frames += frames;
    daemon.forget();
  }

  private look(workers: readonly number[]): void {
    const now = this.proxy.workers();
    if (!workers.every((worker) => now.includes(worker))) {
      this.condemn(`a worker has ended. The log says:\n${this.proxy.log().slice(-2000)}`);
      return;
    }
    for (const worker of workers) {
      this.highestMemory = Math.max(this.highestMemory, residentBytes(worker));
    }
    if (this.highestMemory > mostMemory) {
      this.condemn(`a worker has ${this.highestMemory} bytes in use`);
    }
    if (/: error : (pool|primary) :/.test(this.proxy.log())) {
      this.condemn(`an error was logged:\n${this.proxy.log().slice(-2000)}`);
    }
  }

  /** That nothing is left of the fuzzed peers, in the proxy's processes and at the daemons. */
  private async expectQuiet(workers: readonly number[], before: readonly number[]): Promise<void> {
    // The healthy client may be between two connections, or open one.
    const slack = 4;
    const isQuiet = (): boolean =>
      this.judges.reduce((sum, { connections }) => sum + connections, 0) <= slack &&
      [this.proxy.pid, ...workers].every(
        (pid, index) => openDescriptors(pid) <= before[index]! + slack,
      );
    if (this.findings.size > 0) return;
    await until(isQuiet, { what: 'the end', deadlineMs: patience }).catch(() => {
      const now = [this.proxy.pid, ...workers].map(openDescriptors);
      const connections = this.judges.map((judge) => judge.connections).join(' ');
      this.condemn(
        `something is left over: descriptors ${before.join(' ')}, then ${now.join(' ')}; ` +
          `connections to daemons ${connections}`,
      );
    });
  }

  private condemn(why: string): void {
    const sessions = [...this.current.values()].flat().join(',');
    const { seed } = this.options;
    this.findings.add(`${why}\n  npm run fuzz -- --seed ${seed} --only ${sessions}`);
  }

  private report(latencies: readonly number[]): CampaignReport {
    const at = (share: number): number => latencies[Math.floor(share * latencies.length)] ?? 0;
    return {
      findings: [...this.findings],
      sessions: this.sessions,
      frames: this.frames,
      daemonFaults: this.fuzzed.reduce((sum, { faults }) => sum + faults, 0),
      judged: this.judges.reduce((sum, { frames }) => sum + frames, 0),
      healthyCalls: latencies.length,
      healthyMedian: at(0.5),
      healthyP99: at(0.99),
      mostMemory: this.highestMemory,
    };
  }

  private async end(): Promise<void> {
    await this.proxy.stop();
    await Promise.all([...this.judges, ...this.fuzzed].map((daemon) => daemon.stop()));
    await rm(this.directory, { recursive: true, force: true });
  }
}

const isRoot = process.getuid?.() === 0;

interface Remote {
  readonly conf: Record<string, string | number>;
  readonly env: Readonly<Record<string, string>>;
  readonly entrances: FuzzEntrance[];
}

/** TCP with SASL and TLS, as far as this machine has what they need. */
async function remoteEntrances(directory: string): Promise<Remote> {
  const [tcp, tls] = (await freePorts(2)) as [number, number];
  const conf: Record<string, string | number> = { listen_addr: '127.0.0.1' };
  const entrances: FuzzEntrance[] = [];
  let env: Readonly<Record<string, string>> = {};
  const connectTo = (port: number) => async (): Promise<Socket> => {
    const socket = createConnection({ host: '127.0.0.1', port });
    await once(socket, 'connect');
    return socket;
  };
  if (saslAccountsLacking() === undefined) {
    const users = { fred: 'password' };
    const accounts = await SaslAccounts.create({ directory, mechanisms: 'SCRAM-SHA-256', users });
    env = accounts.serverEnv;
    Object.assign(conf, { listen_tcp: 1, tcp_port: String(tcp) });
    entrances.push({ name: 'tcp', strangers: true, connect: connectTo(tcp) });
  }
  if (certificatesLacking() === undefined) {
    const authority = Authority.create(directory, 'authority');
    const { cert, key } = authority.issue('server', { purpose: purpose.server });
    Object.assign(conf, { listen_tls: 1, tls_port: String(tls) });
    Object.assign(conf, { ca_file: authority.cert, cert_file: cert, key_file: key });
    const hello = await clientHello();
    const prelude = (random: Random): Buffer => {
      const bytes = Buffer.from(hello.subarray(0, 1 + random.below(hello.length)));
      if (random.chance(0.7)) bytes[random.below(bytes.length)] = random.below(256);
      return bytes;
    };
    entrances.push({ name: 'tls', strangers: true, connect: connectTo(tls), prelude });
  }
  return { conf, env, entrances };
}
