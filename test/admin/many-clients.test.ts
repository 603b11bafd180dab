import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { adminProcedure as number } from '../../lib/admin/messages.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { AdminClient, nameClient, unsigned } from './admin-client.js';

const own = 'virtproxyd';
const clientCount = 2000;
const drainingCount = 200;

/** Milliseconds within which every call must be answered. */
const limit = 200;

/** How often each command is tried. */
const rounds = 5;

describe(`administration with ${clientCount} clients`, function () {
  this.timeout(180_000);
  let directory: string;
  let qemu: StandInDaemon;
  let proxy: Proxy;
  let admin: AdminClient;
  const idle: RawClient[] = [];
  const open: RawClient[] = [];

  before(async () => {
    directory = await freshDirectory();
    qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf: { max_clients: clientCount + 1000 },
      cluster: `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = 2\nlogin_timeout = 3600\n`,
    });
    admin = await AdminClient.connect(join(proxy.directory, 'libvirt-admin-sock'));
    while (idle.length < clientCount - drainingCount) {
      // More at a time than the kernel's queue holds would be refused.
      const batch = Array.from({ length: 100 }, () => RawClient.connect(proxy.socket));
      idle.push(...(await Promise.all(batch)));
      await served(idle.length);
    }
    while (open.length < drainingCount) open.push(await proxy.open());
    await served(clientCount);
  });
  after(async () => {
    admin.destroy();
    for (const client of [...idle, ...open]) client.destroy();
    await proxy.stop('SIGKILL');
    await qemu.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function served(count: number): Promise<void> {
    await until(async () => (await admin.limits(own)).nclients === count, {
      what: `${count} clients to be served`,
      deadlineMs: 60_000,
    });
  }

  /**
   * Every command of virt-admin, as the calls it makes. None of them changes anything for the next.
   */
  function commands(someId: number): [string, () => Promise<unknown>][] {
    const text = (value: string | null) => (procedure: number) =>
      admin.ask(procedure, (writer) => {
        writer.optional(value, (present) => writer.string(present));
        writer.unsigned(0);
      });
    const plain = (procedure: number) => admin.ask(procedure, (writer) => writer.unsigned(0));
    return [
      ['connect', () => plain(number.connectOpen)],
      ['version', () => admin.ask(number.connectGetLibVersion)],
      ['server-list', () => admin.servers()],
      ['client-list virtproxyd', () => admin.clients(own)],
      ['client-list admin', () => admin.clients('admin')],
      ['client-info', () => admin.clientInfo(own, someId)],
      [
        'client-disconnect of nobody',
        () => admin.refused(number.clientClose, (writer) => nameClient(writer, own, 0).unsigned(0)),
      ],
      ['server-threadpool-info', () => admin.threadpool(own)],
      [
        'server-threadpool-set',
        () => admin.set(number.serverSetThreadpoolParameters, own, unsigned('maxWorkers', 2)),
      ],
      ['server-clients-info', () => admin.limits(own)],
      [
        'server-clients-set',
        () => admin.set(number.serverSetClientLimits, own, unsigned('nclients_unauth_max', 20)),
      ],
      ['daemon-log-filters', () => plain(number.connectGetLoggingFilters)],
      ['daemon-log-filters --filters', () => text('3:session')(number.connectSetLoggingFilters)],
      ['daemon-log-outputs', () => plain(number.connectGetLoggingOutputs)],
      ['daemon-log-outputs --outputs', () => text('3:stderr')(number.connectSetLoggingOutputs)],
      [
        'server-update-tls',
        () =>
          admin.refused(number.serverUpdateTlsFiles, (writer) => writer.string(own).unsigned(0)),
      ],
      [
        'daemon-timeout',
        () => admin.ask(number.connectSetDaemonTimeout, (writer) => writer.unsigned(0).unsigned(0)),
      ],
    ];
  }

  async function expectQuickAnswers(): Promise<void> {
    const [one] = await admin.clients(own);
    const slow: string[] = [];
    for (const [name, ask] of commands(one!.id)) {
      const times: number[] = [];
      while (times.length < rounds) {
        const before = performance.now();
        await ask();
        times.push(performance.now() - before);
      }
      // The middle one: on a busy machine any process may have to wait for its turn.
      const time = times.sort((a, b) => a - b)[(rounds - 1) / 2]!;
      if (time >= limit) slow.push(`${name}: ${time.toFixed(0)} ms`);
    }
    expect(slow).to.deep.equal([]);
  }

  it(`every command is answered within ${limit} ms`, expectQuickAnswers);

  it('the list holds every one, with its id', async () => {
    const ids = (await admin.clients(own)).map(({ id }) => id);
    expect(new Set(ids).size).to.equal(clientCount);
    expect(await admin.limits(own)).to.include({ nclients: clientCount });
  });

  it('a client can be disconnected within as short a time', async () => {
    const victim = await proxy.open();
    const { id } = (await admin.clients(own)).at(-1)!;
    const before = performance.now();
    await admin.disconnect(own, id);
    expect(performance.now() - before).to.be.below(limit);
    await victim.end;
    await served(clientCount);
  });

  it(`every command is answered within ${limit} ms while a reload drains`, async () => {
    const before = (await admin.clients(own)).length;
    const workers = proxy.workers();
    proxy.signal('SIGHUP');
    await until(
      () => workers.every((pid) => proxy.workers().includes(pid)) && proxy.workers().length === 4,
      {
        what: 'the new generation',
        deadlineMs: 30_000,
      },
    );
    await expectQuickAnswers();
    expect(proxy.workers()).to.include.members(workers);
    expect((await admin.clients(own)).length).to.equal(before);
    const [drained] = open;
    const ids = (await admin.clients(own)).map(({ id }) => id);
    for (const id of ids.slice(-drainingCount)) await admin.disconnect(own, id);
    await drained!.end;
  });
});
