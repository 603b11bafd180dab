import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { messageType, status } from '../../lib/rpc/frame.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { virsh } from './clients.js';
import { frameOf, type ReceivedFrame } from './frame-socket.js';
import { readError, type RawClient } from './raw-client.js';
import {
  echoOf,
  streamBytes,
  streamPart,
  stressCall,
  stressHostname,
  type StressDaemon,
} from './stress-daemon.js';
import { until } from './waiting.js';

/** A way into the proxy. */
export interface Entrance {
  readonly name: string;
  /** A client that may send its first frame. Rejects when it is not let in. */
  readonly connect: () => Promise<RawClient>;
  /** The same way for virsh. */
  readonly uri: string;
}

export interface StressOptions {
  readonly daemon: StressDaemon;
  readonly entrances: readonly Entrance[];
  /**
   * Milliseconds that a connection with calls, events or a stream lives; Infinity: until `stop`.
   */
  readonly lifetimeMs?: number;
  /** Whether virsh connects too, again and again. */
  readonly withVirsh?: boolean;
}

/**
 * `refused`: no connection was to be had; `error`: a call failed, had no reply in time or the
 * connection ended; `bytes`: a reply or a stream has another content; `event`: one is missing, or
 * out of its order.
 */
export type LossKind = 'refused' | 'error' | 'bytes' | 'event';

/** Something that a client did not get as it should. */
export interface Loss {
  readonly kind: LossKind;
  /** Who lost it: `tls events`. */
  readonly actor: string;
  readonly what: string;
  /** The process that served the client; null: none was seen to. */
  readonly worker: number | null;
  /** Milliseconds of `performance.now()` when the client began to connect, and when it lost. */
  readonly since: number;
  readonly at: number;
}

/** What was done, and what was lost. */
export interface StressReport {
  readonly losses: readonly Loss[];
  readonly calls: number;
  readonly events: number;
  /** Of streams, both ways. */
  readonly bytes: number;
  readonly connections: number;
  /** Times that virsh ran. */
  readonly virsh: number;
}

/** Milliseconds between the steps of a call loop, between new connections, and between virsh's. */
const callInterval = 6;
const connectInterval = 25;
const virshInterval = 150;

/** Milliseconds that a reply may take before it counts as lost. */
const patience = 20_000;

/**
 * Milliseconds after a refused connection, so that a proxy that is down does not make a storm of
 * them.
 */
const refusedInterval = 20;

const opening = { name: 'qemu:///system', flags: 0 };

class Lost extends Error {
  constructor(
    readonly kind: LossKind,
    what: string,
  ) {
    super(what);
  }
}

/** One connection of one actor. */
interface Visit {
  /** Unlike every other visit's. */
  readonly number: number;
  readonly client: RawClient;
  /** Whether it is time to leave. */
  readonly isOver: () => boolean;
  /** Counts a step of the actor's work. */
  readonly step: () => void;
}

/**
 * Clients of every kind on every entrance, that check all they are sent: loops of calls,
 * connections with numbered events, downloads and uploads, and new connections all the time.
 */
export class Stress {
  private readonly losses: Loss[] = [];
  private readonly totals = { calls: 0, events: 0, bytes: 0, connections: 0, virsh: 0 };
  /** Steps done, by actor. */
  private readonly steps = new Map<string, number>();
  private readonly visits = new Set<number>();
  private readonly running: Promise<void>[];
  private lastNumber = 0;
  private stopping = false;

  private constructor(private readonly options: StressOptions) {
    const { entrances, withVirsh = false } = options;
    const rounds = {
      calls: (visit: Visit) => this.callAgainAndAgain(visit),
      events: (visit: Visit) => this.takeEvents(visit),
      download: (visit: Visit) => this.download(visit),
      upload: (visit: Visit) => this.upload(visit),
      connections: (visit: Visit) => this.connectOnce(visit),
    };
    this.running = entrances.flatMap((entrance) =>
      Object.entries(rounds).map(([name, round]) => this.act(entrance, name, round)),
    );
    if (withVirsh) this.running.push(this.runVirsh());
  }

  /** Resolves when every actor has begun its work. */
  static async start(options: StressOptions): Promise<Stress> {
    const stress = new Stress(options);
    await stress.flows();
    return stress;
  }

  /** Resolves when every actor has got on since the call. Rejects when one does not. */
  async flows(): Promise<void> {
    const before = new Map(this.steps);
    const stuck = (): string[] =>
      [...this.steps]
        .filter(([name, count]) => count <= (before.get(name) ?? 0))
        .map(([name]) => name);
    await until(() => stuck().length === 0, {
      what: 'every client to get on',
      deadlineMs: patience,
    }).catch(() => {
      throw new Error(`These clients do not get on: ${stuck().join(', ')}. ${this.lostSoFar()}`);
    });
  }

  /** Numbers of the connections that a worker process serves now. */
  servedBy(worker: number): number[] {
    const { workers } = this.options.daemon;
    return [...this.visits].filter((number) => workers.get(number) === worker);
  }

  /** Ends all clients in good order. */
  async stop(): Promise<StressReport> {
    this.stopping = true;
    await Promise.all(this.running);
    return { ...this.totals, losses: this.losses };
  }

  /** One actor: connects, does its work, leaves and begins anew. */
  private async act(
    entrance: Entrance,
    name: string,
    work: (visit: Visit) => Promise<void>,
  ): Promise<void> {
    const actor = `${entrance.name} ${name}`;
    const step = (): void => void this.steps.set(actor, (this.steps.get(actor) ?? 0) + 1);
    this.steps.set(actor, 0);
    while (!this.stopping) {
      const number = ++this.lastNumber;
      const since = performance.now();
      // No two connections end at the same time.
      const lifetime = (this.options.lifetimeMs ?? 600) * (0.75 + Math.random() / 2);
      const isOver = (): boolean => this.stopping || performance.now() - since > lifetime;
      try {
        const client = await entrance.connect().catch(notLetIn);
        this.visits.add(number);
        await this.visit({ number, client, isOver, step }, work).finally(() => client.destroy());
        this.totals.connections++;
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        const kind = error instanceof Lost ? error.kind : 'error';
        const worker = this.options.daemon.workers.get(number) ?? null;
        this.losses.push({
          kind,
          actor,
          what: error.message,
          worker,
          since,
          at: performance.now(),
        });
        await pause(refusedInterval);
      } finally {
        this.visits.delete(number);
      }
    }
  }

  private async visit(visit: Visit, work: (visit: Visit) => Promise<void>): Promise<void> {
    const { client } = visit;
    await this.ask(client, procedure.connectOpen, encodeOpenArguments(opening));
    // So that the daemon knows by whom the client is served.
    await this.echo(visit, 4);
    await work(visit);
    await this.ask(client, procedure.connectClose);
    await client.end;
    if (client.frames.length > 0) throw new Lost('bytes', 'frames that nobody asked for');
  }

  private async callAgainAndAgain(visit: Visit): Promise<void> {
    for (let round = 1; !visit.isOver(); round++) {
      // Now and then one that is relayed while it arrives.
      const sizes = [16, 300, round % 40 === 0 ? 200_000 : 2000];
      await Promise.all(sizes.map((size) => this.echo(visit, size)));
      visit.step();
      await pause(callInterval);
    }
  }

  private async echo({ client, number }: Visit, size: number): Promise<void> {
    const payload = Buffer.concat([encodeInt(number), randomBytes(size)]);
    const reply = await this.ask(client, stressCall.echo, payload);
    if (!reply.payload.equals(echoOf(payload)))
      throw new Lost('bytes', `the reply to an echo call`);
    this.totals.calls++;
  }

  private async connectOnce({ step }: Visit): Promise<void> {
    step();
    await pause(connectInterval);
  }

  private async takeEvents({ client, isOver, step }: Visit): Promise<void> {
    let received = 0;
    const wrong: number[] = [];
    client.consume = ({ type, procedure: number, payload }) => {
      if (type !== messageType.message || number !== stressCall.event) return false;
      if (payload.readUInt32BE(0) !== ++received) wrong.push(received);
      step();
      return true;
    };
    await this.ask(client, stressCall.registerEvents);
    await this.whileOn(client, isOver);
    const last = await this.ask(client, stressCall.deregisterEvents);
    const sent = last.payload.readUInt32BE(0);
    if (wrong.length > 0) throw new Lost('event', `other events than ${wrong.join(', ')}`);
    if (received !== sent) throw new Lost('event', `${received} of ${sent} events`);
    this.totals.events += received;
  }

  private async download({ client, isOver, step }: Visit): Promise<void> {
    do {
      const length = 40 * streamPart;
      let received = 0;
      const serial = client.begin(stressCall.download, encodeInt(length));
      succeeded(await client.replyTo(serial, patience));
      for (;;) {
        const { payload, ...frame } = await this.nextOfStream(client, serial);
        if (frame.status === status.ok) break;
        if (!payload.equals(streamBytes(received, payload.length))) {
          throw new Lost('bytes', `a download behind byte ${received}`);
        }
        received += payload.length;
        this.totals.bytes += payload.length;
        step();
      }
      if (received !== length) throw new Lost('bytes', `${received} of a download's ${length}`);
    } while (!isOver());
  }

  private async upload({ client, isOver, step }: Visit): Promise<void> {
    do {
      const length = 20 * streamPart;
      const serial = client.begin(stressCall.upload);
      succeeded(await client.replyTo(serial, patience));
      const header = { procedure: stressCall.upload, type: messageType.stream, serial };
      for (let at = 0; at < length; at += streamPart) {
        const part = frameOf({ ...header, status: status.continue }, streamBytes(at, streamPart));
        await client.sendWithRegard(part);
        this.totals.bytes += streamPart;
        step();
        await pause(callInterval);
      }
      client.send(frameOf(header));
      const verdict = await this.nextOfStream(client, serial);
      const arrived = Buffer.concat([encodeInt(1), encodeInt(length)]);
      if (!verdict.payload.equals(arrived)) throw new Lost('bytes', 'an upload');
    } while (!isOver());
  }

  private async ask(client: RawClient, number: number, payload?: Buffer): Promise<ReceivedFrame> {
    const reply = await client.replyTo(client.begin(number, payload), patience);
    succeeded(reply);
    return reply;
  }

  private async nextOfStream(client: RawClient, serial: number): Promise<ReceivedFrame> {
    const frame = await client.take(
      (each) => each.type === messageType.stream && each.serial === serial,
      `the next frame of stream ${serial}`,
      patience,
    );
    if (frame.status === status.error) succeeded(frame);
    return frame;
  }

  private async whileOn(client: RawClient, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      if (client.ended) throw new Lost('error', 'The connection has ended.');
      await pause(callInterval);
    }
  }

  private async runVirsh(): Promise<void> {
    this.steps.set('virsh', 0);
    while (!this.stopping) {
      for (const { name, uri } of this.options.entrances) {
        const since = performance.now();
        const { code, stdout, stderr } = await virsh(uri, ['hostname']);
        if (code !== 0 || stdout.trim() !== stressHostname) {
          const what = `status ${code ?? 'none'}: ${stdout}${stderr}`;
          const at = performance.now();
          const actor = `${name} virsh`;
          this.losses.push({ kind: 'error', actor, what, worker: null, since, at });
        }
        this.totals.virsh++;
        this.steps.set('virsh', this.totals.virsh);
        await pause(virshInterval);
      }
    }
  }

  private lostSoFar(): string {
    return this.losses.map(({ actor, kind, what }) => `${actor}: ${kind}: ${what}`).join('\n');
  }
}

function notLetIn(error: unknown): never {
  const { code = '', message } = error as NodeJS.ErrnoException;
  const refused = ['ECONNREFUSED', 'ENOENT', 'EAGAIN', 'ETIMEDOUT'].includes(code);
  throw new Lost(refused ? 'refused' : 'error', message);
}

function succeeded(frame: ReceivedFrame): void {
  if (frame.status === status.error) throw new Lost('error', readError(frame).message ?? 'error');
}
