import { setTimeout as pause } from 'node:timers/promises';
import { AdminClient } from '../admin/admin-client.js';
import { openDescriptors, Service, tcpEntrance } from '../lifecycle/service.js';
import type { ClientOptions } from '../native/sasl-client.js';
import { saslEnvironment } from '../native/sasl-environment.js';
import type { TlsClientOptions } from '../peers/remote-client.js';
import type { Entrance } from '../peers/stress.js';
import { until } from '../peers/waiting.js';
import { join } from 'node:path';
import { KeepaliveWatch } from './keepalive-watch.js';
import { MemoryProbe } from './memory-probe.js';
import { shakeHandsCutOff, visit, visitBySasl, visitCutOff, WrongAnswer } from './visitors.js';

export interface SoakOptions {
  /** Whichever comes first ends the soak. */
  readonly seconds: number;
  readonly sessions: number;
  /** Clients that come and go at a time; 0: none but the one that watches keepalive. */
  readonly clients: number;
}

export interface SoakReport {
  readonly sessions: number;
  /** Of these, cut off by their client. */
  readonly cutOff: number;
  /** Of these, broken by what was done to worker or daemon. */
  readonly broken: number;
  readonly reloads: number;
  readonly kills: number;
  readonly restarts: number;
  readonly pongs: number;
  /** Milliseconds. */
  readonly slowestPong: number;
  /** Bytes in use after garbage collection, by process, before and after the steady half. */
  readonly memory: readonly { readonly before: number; readonly after: number }[];
  readonly descriptors: readonly { readonly before: number; readonly after: number }[];
  /** What is not as it should be; empty when all is. */
  readonly findings: readonly string[];
}

/** Milliseconds between two of the things that are done to the service. */
const blowInterval = 3000;

/**
 * Sessions that make every process allocate what it keeps for good, and the most sessions of a
 * first try.
 */
const warmUp = 400;

/** Milliseconds until all is to be quiet when nobody comes any more. */
const patience = 60_000;

/**
 * Bytes by which a process may have grown in the steady half: compiled code, and caches with a
 * bound.
 */
const mostGrowth = 6 * 1024 * 1024;

/** Descriptors by which the processes may differ: the admin's own connection comes and goes. */
const slack = 1;

/**
 * Breaks that one blow may cause for each client there is: of its session, and of one it tries at
 * once.
 */
const breaksPerBlow = 3;

/**
 * The whole service under sessions of every kind, half of them cut off: in its first half with
 * reloads, killed workers and restarted daemons, in its steady half with restarted daemons alone,
 * so that processes stay and can be compared.
 */
export class Soak {
  private readonly counts = {
    sessions: 0,
    cutOff: 0,
    broken: 0,
    reloads: 0,
    kills: 0,
    restarts: 0,
  };
  private readonly complaints = new Map<string, number>();
  private readonly pongs: number[] = [];
  private readonly findings: string[] = [];

  private constructor(
    private readonly options: SoakOptions,
    private readonly service: Service,
    private readonly probe: MemoryProbe,
    private readonly account: ClientOptions | null,
  ) {}

  static async run(options: SoakOptions): Promise<SoakReport> {
    const account = saslEnvironment();
    const probe = new MemoryProbe();
    const conf = {
      ...(account !== null && { auth_tcp: 'sasl' }),
      max_clients: 1000,
      max_anonymous_clients: 1000,
    };
    const sasl = process.env['SASL_CONF_PATH'] ?? '';
    const service = await Service.start({
      remote: true,
      conf,
      env: { ...probe.env(), SASL_CONF_PATH: sasl },
    });
    try {
      return await new Soak(options, service, probe, account).play();
    } finally {
      // After a failure clients may still be there.
      await service.end({ alone: false });
      probe.end();
    }
  }

  private async play(): Promise<SoakReport> {
    const { options, service } = this;
    await service.readyWorkers(2);
    if (options.clients > 0) {
      await this.visitors(this.part(0.5, 0.5), () => this.anyBlow());
      // Each worker of the last generation, too, is to have done everything once.
      await service.reload();
      const isHalfWay = this.part(0.1, 0.6);
      const warmUpEnd = this.counts.sessions + warmUp;
      await this.visitors(
        () => this.counts.sessions >= warmUpEnd || isHalfWay(),
        () => Promise.resolve(),
      );
    }
    const pids = await this.quietProcesses();
    const before = await this.measure(pids);
    const watch = new KeepaliveWatch(() => service.proxy.open(), service.daemon);
    await this.visitors(this.part(options.clients > 0 ? 0.4 : 1, 1), () =>
      options.clients > 0 ? this.restart() : Promise.resolve(),
    );
    await watch.stop();
    this.pongs.push(...watch.latencies);
    const now = await this.quietProcesses();
    if (now.join(' ') !== pids.join(' ')) this.findings.push('a process has ended by itself');
    const after = await this.measure(now);
    return this.report(before, after);
  }

  /**
   * Begins a part of the soak that takes `share` of the time and ends with `until` of the sessions;
   * the result tells whether it is over.
   */
  private part(share: number, until: number): () => boolean {
    const { seconds, sessions } = this.options;
    const end = performance.now() + share * seconds * 1000;
    const last = until * sessions;
    return () => performance.now() >= end || this.counts.sessions >= last;
  }

  /** Clients that come and go until it is over, while `blow` is dealt again and again. */
  private async visitors(isOver: () => boolean, blow: () => Promise<void>): Promise<void> {
    const dealing = (async () => {
      let next = performance.now() + blowInterval;
      while (!isOver()) {
        await pause(50);
        if (performance.now() < next) continue;
        await blow();
        next = performance.now() + blowInterval;
      }
    })();
    const visiting = Array.from({ length: this.options.clients }, async () => {
      while (!isOver()) await this.session();
    });
    await Promise.all([dealing, ...visiting]);
  }

  private async session(): Promise<void> {
    const isCut = this.counts.sessions++ % 2 === 0;
    if (isCut) this.counts.cutOff++;
    try {
      await this.anyVisit(isCut);
    } catch (error) {
      if (isCut) return;
      if (error instanceof WrongAnswer) this.findings.push(error.message);
      this.counts.broken++;
      const words = String(error);
      this.complaints.set(words, (this.complaints.get(words) ?? 0) + 1);
    }
  }

  private anyVisit(isCut: boolean): Promise<void> {
    const entrance = this.anyEntrance();
    const { account } = this;
    if (entrance.name === 'tcp' && account !== null)
      return visitBySasl(this.tcpPort, account, isCut);
    if (!isCut) return visit(entrance);
    if (entrance.name === 'tls' && Math.random() < 0.5) return shakeHandsCutOff(this.tls);
    return visitCutOff(entrance);
  }

  /** Handshakes cost more than anything else, and there are others. */
  private anyEntrance(): Entrance {
    const [unix, ...remote] = this.service.entrances;
    const chance = Math.random();
    if (chance < 0.85) return unix!;
    return chance < 0.93 ? tcpEntrance(this.tcpPort) : remote.at(-1)!;
  }

  private get tcpPort(): number {
    return Number(this.service.conf['tcp_port']);
  }

  private get tls(): TlsClientOptions {
    const { authority, client } = this.service.credentials!;
    return { port: Number(this.service.conf['tls_port']), ca: authority.cert, certificate: client };
  }

  /**
   * In turn, so that each death is followed by a reload, with which the patience for deaths begins
   * anew.
   */
  private async anyBlow(): Promise<void> {
    const { kills, reloads, restarts } = this.counts;
    if (restarts < reloads) await this.restart();
    else if (kills <= reloads) await this.kill();
    else await this.reload();
  }

  private async kill(): Promise<void> {
    const [worker] = this.service.proxy.workers();
    if (worker !== undefined) process.kill(worker, 'SIGKILL');
    this.counts.kills++;
    await pause(500);
  }

  private async reload(): Promise<void> {
    await this.service.reload();
    this.counts.reloads++;
  }

  private async restart(): Promise<void> {
    await this.service.daemon.restart();
    this.counts.restarts++;
  }

  /** The primary and its two workers, once all older ones and all clients are gone. */
  private async quietProcesses(): Promise<number[]> {
    const { service } = this;
    const isQuiet = async (): Promise<boolean> =>
      service.proxy.workers().length === 2 &&
      service.daemon.connections === 0 &&
      (await this.clients()) === 0;
    await until(isQuiet, { what: 'all clients to be gone', deadlineMs: patience }).catch(
      async () => {
        const numbers = `${service.daemon.connections} connections to daemons, ${await this.clients()} clients`;
        this.findings.push(`${numbers} are left over when nobody is there`);
      },
    );
    return [service.pid, ...service.proxy.workers().sort((one, other) => one - other)];
  }

  private async clients(): Promise<number> {
    const socket = join(this.service.proxy.directory, 'libvirt-admin-sock');
    const admin = await AdminClient.connect(socket);
    try {
      await admin.admin(1, (writer) => writer.bool(false).unsigned(0));
      return (await admin.clients('virtproxyd')).length;
    } finally {
      admin.destroy();
    }
  }

  private async measure(pids: readonly number[]): Promise<Measure[]> {
    const measures: Measure[] = [];
    for (const pid of pids) {
      measures.push({
        memory: await this.probe.bytesInUse(pid),
        descriptors: openDescriptors(pid),
      });
    }
    return measures;
  }

  private report(before: readonly Measure[], after: readonly Measure[]): SoakReport {
    const { counts, findings, options } = this;
    const pairs = (field: keyof Measure): { before: number; after: number }[] =>
      before.map((measure, index) => ({ before: measure[field], after: after[index]![field] }));
    const memory = pairs('memory');
    const descriptors = pairs('descriptors');
    for (const growth of memory) {
      if (growth.after - growth.before > mostGrowth) {
        findings.push(`a process has grown from ${growth.before} to ${growth.after} bytes`);
      }
    }
    for (const growth of descriptors) {
      if (growth.after - growth.before > slack) {
        findings.push(`descriptors are left over: ${growth.before}, then ${growth.after}`);
      }
    }
    const blows = counts.kills + counts.restarts + counts.reloads;
    if (counts.broken > breaksPerBlow * blows * options.clients) {
      const words = [...this.complaints].map(([what, times]) => `${times} × ${what}`).join('; ');
      findings.push(`${counts.broken} sessions were broken by ${blows} blows: ${words}`);
    }
    const slowestPong = this.pongs.reduce((most, each) => Math.max(most, each), 0);
    return { ...counts, pongs: this.pongs.length, slowestPong, memory, descriptors, findings };
  }
}

interface Measure {
  readonly memory: number;
  readonly descriptors: number;
}
