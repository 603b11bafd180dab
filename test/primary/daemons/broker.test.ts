import { closeSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Configuration } from '../../../lib/config/configuration.js';
import type { PrimaryMessage, ProvenIdentity } from '../../../lib/control/messages.js';
import { acceptNext, hasWaiting, listenOnPath } from '../../../lib/native/listening-socket.js';
import { ClientRegistry, type Client } from '../../../lib/primary/clients/client-registry.js';
import { DaemonBroker } from '../../../lib/primary/daemons/broker.js';
import type { WorkerProcess } from '../../../lib/primary/workers/worker-process.js';
import type { NumberedDescriptor } from '../../../lib/transport/numbered-descriptors.js';
import { freshDirectory, until } from '../../peers/waiting.js';
import { clientOf, peer } from '../clients/client.js';
import { configurationIn } from '../configuration.js';
import { recordedLog } from '../recorded-log.js';

interface FakeWorker {
  readonly told: PrimaryMessage[];
  /** Numbers of the sockets it was passed. */
  readonly passed: number[];
  readonly process: WorkerProcess;
  /** Whether it takes what it is passed. */
  takes: boolean;
  isKilled: boolean;
}

describe('primary/daemons/broker', () => {
  let directory: string;
  let configuration: Configuration;
  let clients: ClientRegistry;
  let granted: Set<Client>;
  let broker: DaemonBroker;
  let lines: string[];
  let worker: FakeWorker;
  let sockets: Map<string, number>;
  let workers: FakeWorker[];

  function fakeWorker(pid: number): FakeWorker {
    const fake: Omit<FakeWorker, 'process'> = {
      told: [],
      passed: [],
      takes: true,
      isKilled: false,
    };
    const pass = (descriptors: readonly NumberedDescriptor[]): boolean => {
      if (!made.takes) return false;
      for (const { number } of descriptors) made.passed.push(number);
      return true;
    };
    const process = {
      pid,
      configuration,
      send: (message: PrimaryMessage) => fake.told.push(message),
      pass,
      kill: () => (made.isKilled = true),
      onClientGone: () => undefined,
    } as unknown as WorkerProcess;
    const made: FakeWorker = Object.assign(fake, { process });
    workers.push(made);
    return made;
  }

  function listen(name: string, backlog = 100): void {
    sockets.set(name, listenOnPath(join(directory, name), backlog));
  }

  beforeEach(async () => {
    directory = await freshDirectory();
    sockets = new Map();
    workers = [];
    for (const name of ['qemu', 'qemu-ro', 'secret', 'secret-ro', 'virtfood-sock']) listen(name);
    configure();
  });
  afterEach(async () => {
    for (const { process } of workers) broker.onWorkerLost(process);
    for (const fd of sockets.values()) closeSync(fd);
    await rm(directory, { recursive: true });
  });

  function configure(access = ''): void {
    const routes = ['qemu', 'secret'].map((driver) => `${driver} = ${join(directory, driver)}\n`);
    const cluster = `[routes]\n${routes.join('')}[access]\n${access}`;
    configuration = configurationIn(directory, '', { mode: 'system', cluster });
    clients = new ClientRegistry();
    granted = new Set();
    const recorded = recordedLog();
    lines = recorded.lines;
    const hasGranted = (client: Client): boolean => granted.has(client);
    broker = new DaemonBroker(clients, { hasGranted }, recorded.log);
    broker.prepare(configuration);
    worker = fakeWorker(1);
  }

  /** Adds a client that has logged in. */
  function add(changes: Partial<Client['introduction']> = {}): Client {
    const client = clientOf(
      { id: clients.nextId(), ...changes },
      { worker: worker.process, stage: 'login', loggedIn: true },
    );
    clients.add(client);
    return client;
  }

  let lastNumber = 0;
  const ask = (
    client: number,
    driver: string,
    readOnly = false,
    { process } = worker,
    number = ++lastNumber,
  ): number => {
    broker.onConnect(process, { kind: 'connect', client, driver, readOnly, number });
    return number;
  };
  const waits = (name: string): boolean => hasWaiting(sockets.get(name)!);
  const expectRefused = (number: number, line: RegExp): void => {
    expect(worker.told).to.deep.equal([{ kind: 'unconnected', number, code: 'EACCES' }]);
    expect(lines).to.have.length(1);
    expect(lines[0])
      .to.match(/^warning: worker 1 asked for /)
      .and.match(line);
    expect([...sockets.keys()].filter(waits)).to.deep.equal([]);
    expect(worker.passed).to.deep.equal([]);
  };

  it('connects to the sockets of the configuration', async () => {
    const { id } = add().introduction;
    const numbers = [ask(id, 'qemu'), ask(id, 'secret', true)];
    await until(() => worker.passed.length === 2, { what: 'two sockets' });
    expect(worker.passed).to.deep.equal(numbers);
    expect(['qemu', 'secret-ro'].map(waits)).to.deep.equal([true, true]);
    expect(['qemu-ro', 'secret'].map(waits)).to.deep.equal([false, false]);
    expect(worker.told).to.deep.equal([]);
    expect(lines).to.deep.equal([]);
  });

  it("tells the system's reason when it cannot", async () => {
    const { id } = add().introduction;
    closeSync(sockets.get('qemu')!);
    sockets.delete('qemu');
    const numbers = [ask(id, 'qemu'), ask(id, 'network')];
    await until(() => worker.told.length === 2, { what: 'two answers' });
    expect(worker.told[0]).to.include({ number: numbers[0], code: 'ECONNREFUSED' });
    expect(worker.told[1]).to.include({ kind: 'unconnected', number: numbers[1] });
  });

  describe('refuses and logs', () => {
    it('a driver that is not in the configuration, though there is such a socket', () => {
      const { id } = add().introduction;
      expectRefused(ask(id, 'food'), /food's daemon for client 1, of which there is none/);
    });

    it('a path', () => {
      const { id } = add().introduction;
      expectRefused(ask(id, '../../tmp/socket'), /of which there is none in the configuration/);
    });

    it("another worker's client, and one there is not", () => {
      const other = fakeWorker(2);
      const client = add();
      client.worker = other.process;
      expectRefused(ask(client.introduction.id, 'qemu'), /client 1, which it does not have/);
      ask(99, 'qemu');
      expect(lines[1]).to.match(/client 99, which it does not have/);
    });

    it('a client that has not logged in', () => {
      const client = add({ auth: 'sasl' });
      client.loggedIn = false;
      expectRefused(ask(client.introduction.id, 'qemu'), /which has not logged in/);
    });

    it('a client that polkit has not let in, whatever its worker says', async () => {
      const client = add({ auth: 'polkit' });
      const { id } = client.introduction;
      expectRefused(ask(id, 'qemu'), /which has not logged in/);
      granted.add(client);
      ask(id, 'qemu');
      await until(() => worker.passed.length === 1, { what: 'the socket' });
    });

    const proven: ProvenIdentity = { saslUserName: null, x509Name: null, readOnly: true };
    const readers: Record<string, () => Client> = {
      'of the read-only socket': () => add({ readOnly: true }),
      'whom its worker has told to be read-only': () => {
        const client = add();
        clients.onLogin(client, proven);
        // It is too late to take that back.
        clients.onLogin(client, { ...proven, readOnly: false });
        return client;
      },
      'named by its user': () => {
        configure('read_only_users = 1000\n');
        return add();
      },
      "named by its process's group": () => {
        configure('read_only_groups = daemon\n');
        return add({ local: { ...peer, groups: [1] } });
      },
      'named by its address': () => {
        configure('read_only_addresses = 192.0.2.0/24\n');
        return add({ transport: 'tcp', local: null, remoteAddress: '192.0.2.7;4711' });
      },
      'named by its listener': () => {
        configure('read_only_listeners = tcp\n');
        return add({ transport: 'tcp', local: null, remoteAddress: '192.0.2.7;4711' });
      },
      'named by its certificate': () => {
        configure('read_only_dn_list = CN=monitor*\n');
        const client = add({ transport: 'tls', local: null, remoteAddress: '192.0.2.7;4711' });
        clients.onLogin(client, { ...proven, x509Name: 'CN=monitor1', readOnly: false });
        return client;
      },
    };
    for (const [which, make] of Object.entries(readers)) {
      it(`the read-write socket for a client ${which}`, async () => {
        const { id } = make().introduction;
        expectRefused(ask(id, 'qemu'), /which may only look, by its read-write socket: refused/);
        ask(id, 'qemu', true);
        await until(() => waits('qemu-ro'), { what: 'a connection to the other one' });
      });
    }
  });

  it('is held up by no daemon that accepts nobody', async () => {
    const { id } = add().introduction;
    const hung = join(directory, 'network');
    const routes = `[routes]\nqemu = ${join(directory, 'qemu')}\nnetwork = ${hung}\n`;
    configuration = configurationIn(directory, '', { mode: 'system', cluster: routes });
    broker.prepare(configuration);
    worker = fakeWorker(3);
    clients.get(id)!.worker = worker.process;
    listen('network', 0);
    const numbers = Array.from({ length: 100 }, () => ask(id, 'network'));
    const served = ask(id, 'qemu');
    await until(() => worker.passed.includes(served), { what: "qemu's socket" });
    expect(worker.passed).to.have.length(2);
    const refused = worker.told.map((message) => 'code' in message && message.code);
    expect(new Set(refused)).to.deep.equal(new Set(['EAGAIN']));
    expect(refused).to.have.length(numbers.length - 1);
  });

  it('opens no more for a worker that takes none, and goes on when it does', async () => {
    const { id } = add().introduction;
    worker.takes = false;
    const numbers = Array.from({ length: 90 }, () => ask(id, 'qemu'));
    const accepted: number[] = [];
    const accept = (): boolean => {
      const fd = acceptNext(sockets.get('qemu')!);
      if (fd === null) return false;
      accepted.push(fd);
      return true;
    };
    await until(() => accept() || accepted.length > 0, { what: 'connections' });
    const settled = performance.now() + 200;
    await until(() => !accept() && performance.now() > settled, { what: 'the last of them' });
    expect(accepted).to.have.length(32);
    worker.takes = true;
    await until(() => (accept(), worker.passed.length === 90), { what: 'all sockets' });
    expect(worker.passed).to.deep.equal(numbers);
    while (accept());
    for (const fd of accepted) closeSync(fd);
  });

  it('closes what a worker has not taken when it ends', async () => {
    const { id } = add().introduction;
    worker.takes = false;
    ask(id, 'qemu');
    await until(() => waits('qemu'), { what: 'the connection' });
    broker.onWorkerLost(worker.process);
    const far = acceptNext(sockets.get('qemu')!)!;
    const { Socket } = await import('node:net');
    const socket = new Socket({ fd: far });
    let ended = false;
    socket.on('end', () => (ended = true)).resume();
    await until(() => ended, { what: 'the end of the connection' });
    socket.destroy();
  });

  it('kills a worker that asks without end and takes nothing', () => {
    const { id } = add().introduction;
    worker.takes = false;
    for (let count = 0; count <= 100_000; count++) ask(id, 'qemu');
    expect(worker.isKilled).to.equal(true);
    expect(lines[0]).to.match(/^error: worker 1 asks for daemons' sockets and takes none: killing/);
  });

  it('looks for workers whether a socket is there', async () => {
    const look = async (driver: string, readOnly: boolean): Promise<boolean> => {
      const number = ++lastNumber;
      await broker.onLook(worker.process, { kind: 'look', number, driver, readOnly });
      const answer = worker.told.at(-1)!;
      expect(answer).to.include({ kind: 'seen', number });
      return 'exists' in answer && answer.exists;
    };
    expect(await look('qemu', false)).to.equal(true);
    expect(await look('qemu', true)).to.equal(true);
    expect(await look('food', false)).to.equal(false);
    expect(await look('../../../etc/passwd', false)).to.equal(false);
  });
});
