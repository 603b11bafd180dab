import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { messageType, status } from '../../lib/rpc/frame.js';
import { frameOf } from '../peers/frame-socket.js';
import { RawClient } from '../peers/raw-client.js';
import { echoMark, echoOf } from './judging-daemon.js';

/** A call of the hypervisor's, one of storage's, and one that opens a stream. */
const calls = [135, 91] as const;
const upload = 208;

/** Milliseconds between two calls, and the most that one may take. */
const interval = 10;
const patience = 20_000;

/** A connection's life in rounds. */
const rounds = 20;

/** A client as it should be, which must notice nothing of what others do. */
export class Bystander {
  readonly latencies: number[] = [];
  private stopping = false;
  private running = Promise.resolve();

  constructor(
    private readonly socket: string,
    private readonly driver: string,
    private readonly condemn: (why: string) => void,
  ) {}

  begin(): void {
    this.running = this.live();
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.running;
  }

  private async live(): Promise<void> {
    while (!this.stopping) {
      try {
        await this.visit();
      } catch (error) {
        this.condemn(`a healthy client was disturbed: ${String(error)}`);
        await pause(100);
      }
    }
  }

  private async visit(): Promise<void> {
    const client = await RawClient.open(this.socket, `${this.driver}:///system`);
    try {
      for (let round = 0; round < rounds && !this.stopping; round++) {
        for (const call of calls) await this.echo(client, call, round === 5 ? 400_000 : 300);
        await pause(interval);
      }
      await this.stream(client);
      if (client.frames.length > 0) throw new Error('it was sent frames that it did not ask for');
    } finally {
      client.destroy();
    }
  }

  private async echo(client: RawClient, call: number, size: number): Promise<void> {
    const before = performance.now();
    const payload = Buffer.concat([echoMark, randomBytes(size)]);
    const reply = await client.replyTo(client.begin(call, payload), patience);
    if (!reply.payload.equals(echoOf(payload))) throw new Error('a reply has another content');
    this.latencies.push(performance.now() - before);
  }

  private async stream(client: RawClient): Promise<void> {
    const serial = client.begin(upload);
    await client.replyTo(serial, patience);
    const header = { procedure: upload, type: messageType.stream, serial };
    const data = randomBytes(5000);
    client.send(frameOf({ ...header, status: status.continue }, data), frameOf(header));
    const isPart = ({ type }: { type: number }): boolean => type === messageType.stream;
    const echo = await client.take(isPart, 'the data', patience);
    if (!echo.payload.equals(data)) throw new Error('a stream has another content');
    const end = await client.take(isPart, 'the end of the stream', patience);
    if (end.status !== status.ok) throw new Error('a stream was aborted');
  }
}
