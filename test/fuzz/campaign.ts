import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openDescriptors } from '../lifecycle/service.js';
import { secondaryDrivers } from '../../lib/rpc/procedures.js';
import { stackOf } from '../peers/command.js';
import type { FrameSocket } from '../peers/frame-socket.js';
import { Proxy, residentBytes } from '../peers/proxy.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { Bystander } from './bystander.js';
import { localEntrances, remoteEntrances } from './entrances.js';
import { playClient, type FuzzEntrance } from './fuzzed-client.js';
import { FuzzedDaemon } from './fuzzed-daemon.js';
import { JudgingDaemon, strangerMark } from './judging-daemon.js';
import { LaneClient } from './lane-client.js';
import { Random } from './random.js';

/** The hypervisor behind which fuzzed clients come, and those whose daemons are fuzzed. */
const judgedDriver = 'ch';
const fuzzedDrivers = ['xen', 'lxc', 'bhyve'] as const;

/** Those whose daemons judge; the strangers' is one that nobody must come to. */
const judgedDrivers = ['qemu', judgedDriver, strangerMark, ...secondaryDrivers];

/** Fuzzed clients at a time. */
const clientLanes = 8;

/**
 * Bytes that a worker may have in use at the worst moment: what its connections may hold at their
 * limits, and garbage.
 */
const mostMemory = 400 * 1024 * 1024;

/** Milliseconds between looks at the proxy's processes. */
const checkInterval = 250;

/**
 * Milliseconds in which everything is to be ready, and as before once the fuzzed peers have left.
 */
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

/**
 * The proxy between fuzzed clients and fuzzed daemons, with a healthy client and daemons that judge
 * beside them.
 */
export class Campaign {
  private readonly findings = new Set<string>();
  /** The sessions that are played now, by lane, each with the one before it. */
  private readonly current = new Map<string, string[]>();
  private sessions = 0;
  private frames = 0;
  private highestMemory = 0;
  private readonly bystander: Bystander;

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
    this.bystander = new Bystander(proxy.socket, 'qemu', found.condemn);
  }

  static async run(options: CampaignOptions): Promise<CampaignReport> {
    const campaign = await Campaign.prepare(options);
    // Of a timer, a socket, or a promise that nobody waits for: it must not end the run without a
    // word about its sessions.
    process.setUncaughtExceptionCaptureCallback((error) => campaign.condemn(stackOf(error)));
    try {
      await campaign.guard(() => campaign.play());
      await campaign.guard(() => campaign.end());
    } finally {
      process.setUncaughtExceptionCaptureCallback(null);
    }
    return campaign.report();
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
      judgedDrivers.flatMap((driver) =>
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
    const routes = [...judgedDrivers, ...fuzzedDrivers].map(
      (driver) => `${driver} = ${join(directory, driver)}\n`,
    );
    const remote = await remoteEntrances(directory);
    const run = join(directory, 'run');
    await mkdir(run);
    const proxy = await Proxy.start({
      directory: run,
      conf: { ...remote.conf, max_clients: 200, max_anonymous_clients: 20 },
      cluster: `[routes]\n${routes.join('')}[cluster]\nworkers = 2\nopen_timeout = 5\nlogin_timeout = 20\n`,
      env: remote.env,
    });
    const entrances = [...localEntrances(proxy, isRoot), ...remote.entrances];
    return new Campaign(options, directory, proxy, entrances, judges, fuzzed, found);
  }

  /** What fails is a finding. */
  private async guard(step: () => Promise<void>, what = ''): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.condemn(`${what}${stackOf(error)}`);
    }
  }

  private async play(): Promise<void> {
    await until(() => this.proxy.workers().length === 2, {
      what: 'the workers',
      deadlineMs: patience,
    });
    const workers = this.proxy.workers();
    const { bystander } = this;
    bystander.begin();
    await until(() => bystander.latencies.length > 50, {
      what: 'the healthy client',
      deadlineMs: patience,
    });
    const before = [this.proxy.pid, ...workers].map(openDescriptors);
    const watch = setInterval(() => this.check(workers), checkInterval);
    await this.playAll();
    clearInterval(watch);
    this.check(workers);
    await this.expectQuiet(workers, before);
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
    const play = lane.startsWith('client')
      ? () => this.playClient(random)
      : () => this.playDaemon(random, seed, Number(lane.replace('daemon', '')));
    await this.guard(play, `${name}: `);
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

  private check(workers: readonly number[]): void {
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

  private report(): CampaignReport {
    const latencies = this.bystander.latencies.sort((one, other) => one - other);
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
    await this.bystander.stop();
    await this.proxy.stop();
    await Promise.all([...this.judges, ...this.fuzzed].map((daemon) => daemon.stop()));
    await rm(this.directory, { recursive: true, force: true });
  }
}

const isRoot = process.getuid?.() === 0;
