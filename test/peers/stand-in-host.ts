import { join } from 'node:path';
import type { FrameSocket, ReceivedFrame } from './frame-socket.js';
import { Proxy, residentBytes, type ProxyOptions } from './proxy.js';
import { RawClient } from './raw-client.js';
import { StandInDaemon } from './stand-in-daemon.js';
import { freshDirectory, until } from './waiting.js';

const hypervisorUri = 'qemu:///system';

/**
 * A client, its connection to one daemon, and the call on it that the daemon has not answered yet.
 */
export interface Conversation {
  readonly client: RawClient;
  readonly link: FrameSocket;
  readonly call: ReceivedFrame;
}

/**
 * The real proxy, with one worker, between raw clients and three stand-in daemons that are new for
 * every test.
 */
export class StandInHost {
  qemu!: StandInDaemon;
  storage!: StandInDaemon;
  network!: StandInDaemon;
  private clients: RawClient[] = [];

  private constructor(readonly proxy: Proxy) {}

  /** `cluster` comes on top of the routes. */
  static async start({
    conf,
    cluster,
  }: Pick<ProxyOptions, 'conf' | 'cluster'> = {}): Promise<StandInHost> {
    const directory = await freshDirectory();
    const routes = ['qemu', 'storage', 'network'].map(
      (driver) => `${driver} = ${socketIn(directory, driver)}\n`,
    );
    const proxy = await Proxy.start({
      directory,
      ...(conf && { conf }),
      args: ['--verbose'],
      cluster: `[routes]\n${routes.join('')}[cluster]\nworkers = 1\n${cluster ?? ''}`,
    });
    return new StandInHost(proxy);
  }

  /** Before each test. */
  async startDaemons(): Promise<void> {
    const listen = (driver: string): Promise<StandInDaemon> =>
      StandInDaemon.listen(socketIn(this.proxy.directory, driver));
    this.qemu = await listen('qemu');
    this.storage = await listen('storage');
    this.network = await listen('network');
  }

  /** Ends a daemon with all its connections. */
  async end(driver: 'qemu' | 'storage' | 'network'): Promise<void> {
    await this[driver].stop();
  }

  /** Another daemon in the place of one that was ended. */
  async begin(driver: 'qemu' | 'storage' | 'network'): Promise<StandInDaemon> {
    const daemon = await StandInDaemon.listen(socketIn(this.proxy.directory, driver));
    this[driver] = daemon;
    return daemon;
  }

  /** After each test. */
  async stopDaemons(): Promise<void> {
    for (const client of this.clients.splice(0)) client.destroy();
    await Promise.all([this.qemu.stop(), this.storage.stop(), this.network.stop()]);
  }

  /** A client that has said nothing yet. */
  async connected(): Promise<RawClient> {
    const client = await RawClient.connect(this.proxy.socket);
    this.clients.push(client);
    return client;
  }

  /** A client that has opened qemu:///system. */
  async opened(): Promise<RawClient> {
    const client = await this.proxy.open(hypervisorUri);
    this.clients.push(client);
    return client;
  }

  /** A new client with a first call that has reached `daemon` and is not answered. */
  async calling(daemon: StandInDaemon, procedure: number): Promise<Conversation> {
    const index = daemon.connections.length;
    const client = await this.opened();
    client.begin(procedure);
    const link = await daemon.connection(index);
    return { client, link, call: await link.takeCall(procedure) };
  }

  /** As `calling`, with the call answered: its stream is open. */
  async streaming(daemon: StandInDaemon, procedure: number): Promise<Conversation> {
    const conversation = await this.calling(daemon, procedure);
    const { client, link, call } = conversation;
    link.reply(call);
    await client.replyTo(call.serial);
    return conversation;
  }

  /** Bytes of memory that the proxy's worker has in use. */
  workerMemory(): number {
    return this.proxy.workers().reduce((sum, pid) => sum + residentBytes(pid), 0);
  }

  /** Waits until the proxy has logged what matches: its lines come by way of the primary. */
  async logged(pattern: RegExp): Promise<void> {
    await until(() => pattern.test(this.proxy.log()), { what: `${pattern.source} in the log` });
  }

  stop(): Promise<number | null> {
    return this.proxy.stop();
  }
}

function socketIn(directory: string, driver: string): string {
  return join(directory, `virt${driver}d-sock`);
}

/** Waits until a count has not grown for a quarter of a second, and returns it. */
export async function stalled(count: () => number): Promise<number> {
  let last = -1;
  let since = performance.now();
  await until(
    () => {
      const now = performance.now();
      if (count() !== last) since = now;
      last = count();
      return now - since > 250;
    },
    { what: 'the flow to stall', deadlineMs: 15_000 },
  );
  return last;
}
