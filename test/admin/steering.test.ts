import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { adminProcedure as number } from '../../lib/admin/messages.js';
import { status } from '../../lib/rpc/frame.js';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, type ProxyOptions } from '../peers/proxy.js';
import type { RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { AdminClient, unsigned } from './admin-client.js';

const getHostname = 59;
const own = 'virtproxyd';

describe('what an administrator does to the running daemon', function () {
  this.timeout(60_000);
  let directory: string;
  let qemu: StandInDaemon;
  let proxy: Proxy;
  let admin: AdminClient;

  beforeEach(async () => {
    directory = await freshDirectory();
    qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    qemu.answer(getHostname, () => encodeString('host'));
  });
  afterEach(async () => {
    admin.destroy();
    await proxy.stop('SIGKILL');
    await qemu.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function start(
    workers: number,
    conf: Exclude<ProxyOptions['conf'], string | undefined> = {},
    least = workers,
  ): Promise<void> {
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf,
      cluster: `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = ${workers}\nmin_workers = ${least}\n`,
      args: ['--verbose'],
    });
    admin = await AdminClient.connect(adminSocket());
    await ready(least);
  }

  /**
   * Waits until this many workers have become ready since the start: only those are given clients.
   */
  async function ready(count: number): Promise<void> {
    const lines = (): number => [...proxy.log().matchAll(/worker \d+ of .*is ready/g)].length;
    await until(() => lines() >= count, { what: `${count} workers to be ready` });
  }

  const adminSocket = (name = 'libvirt'): string => join(proxy.directory, `${name}-admin-sock`);

  const isServed = async (client: RawClient): Promise<boolean> =>
    !client.ended && (await client.call(getHostname)).status === status.ok;

  const ids = async (): Promise<number[]> => (await admin.clients(own)).map(({ id }) => id);

  const resize = (minWorkers: number, maxWorkers: number): Promise<void> =>
    admin.set(
      number.serverSetThreadpoolParameters,
      own,
      unsigned('minWorkers', minWorkers),
      unsigned('maxWorkers', maxWorkers),
    );

  describe('the workers', () => {
    it('become more, and new clients are spread over them', async () => {
      await start(1);
      await resize(3, 3);
      expect(await admin.threadpool(own)).to.include({ minWorkers: 3, maxWorkers: 3, nWorkers: 3 });
      await until(() => proxy.workers().length === 3, { what: 'three workers' });
      await ready(3);
      const clients = [await proxy.open(), await proxy.open(), await proxy.open()];
      const before = proxy.workers();
      await resize(2, 8);
      expect(await admin.threadpool(own)).to.include({ minWorkers: 2, maxWorkers: 8, nWorkers: 3 });
      expect(proxy.workers()).to.deep.equal(before);
      // Each has one of them: with any of the three stopped one client gets no answer.
      for (const pid of before) {
        process.kill(pid, 'SIGSTOP');
        const replies = clients.map((client) => client.call(getHostname));
        let answered = 0;
        for (const reply of replies) void reply.then(() => answered++);
        await until(() => answered === 2, { what: 'the answers of two workers' });
        process.kill(pid, 'SIGCONT');
        await Promise.all(replies);
      }
    });

    it('are as many as are needed between the bounds, of which few and quiet are the least', async () => {
      await start(3, {}, 1);
      const bounds = { minWorkers: 1, maxWorkers: 3 };
      expect(await admin.threadpool(own)).to.include({ ...bounds, nWorkers: 1 });
      await resize(2, 4);
      expect(await admin.threadpool(own)).to.include({ minWorkers: 2, maxWorkers: 4 });
      await until(() => proxy.workers().length === 2, { what: 'two workers' });
    });

    it('become fewer: the surplus serves its clients until they leave', async () => {
      await start(3);
      const clients = [await proxy.open(), await proxy.open(), await proxy.open()];
      const before = await ids();
      await resize(1, 1);
      expect(await admin.threadpool(own)).to.include({ nWorkers: 1, maxWorkers: 1 });
      for (const client of clients) expect(await isServed(client)).to.be.true;
      expect(await ids()).to.deep.equal(before);
      expect(proxy.workers()).to.have.length(3);
      for (const client of clients) client.destroy();
      await until(() => proxy.workers().length === 1, { what: 'the surplus to end' });
      const client = await proxy.open();
      expect(await isServed(client)).to.be.true;
      expect(proxy.workers()).to.have.length(1);
    });

    it('become fewer and more again and again, and none is left over', async () => {
      await start(1);
      const client = await proxy.open();
      for (const count of [4, 1, 3, 2, 1, 2]) {
        await resize(count, count);
        expect((await admin.threadpool(own)).nWorkers).to.equal(count);
        expect(await isServed(await proxy.open())).to.be.true;
      }
      await resize(2, 2);
      for (const { id } of await admin.clients(own)) await admin.disconnect(own, id);
      await client.end;
      await until(() => proxy.workers().length === 2, { what: 'two workers to be left' });
      expect(await isServed(await proxy.open())).to.be.true;
    });

    it('that are killed are replaced up to the number that was set', async () => {
      await start(1);
      await resize(2, 2);
      await until(async () => (await admin.threadpool(own)).freeWorkers === 2, { what: 'both' });
      process.kill(proxy.workers()[0]!, 'SIGKILL');
      await until(
        async () => proxy.workers().length === 2 && (await admin.threadpool(own)).freeWorkers === 2,
        { what: 'the successor' },
      );
    });

    it('are as many as the configuration says after a reload', async () => {
      await start(2);
      await resize(1, 3);
      proxy.signal('SIGHUP');
      await until(async () => (await admin.threadpool(own)).maxWorkers === 2, { what: 'reload' });
      expect(await admin.threadpool(own)).to.include({ minWorkers: 2, nWorkers: 2 });
      await until(() => proxy.workers().length === 2, { what: 'two workers' });
    });

    it('are free without a call under way; calls wait in the queue', async () => {
      qemu.answer(getHostname, () => null);
      await start(2, { max_client_requests: 2 });
      const client = await proxy.open();
      const serials = [1, 2, 3, 4, 5].map(() => client.begin(getHostname));
      const link = await qemu.connection();
      const calls = [await link.takeCall(getHostname), await link.takeCall(getHostname)];
      await until(async () => (await admin.threadpool(own)).jobQueueDepth === 3, {
        what: 'three calls to wait',
      });
      expect(await admin.threadpool(own)).to.include({ nWorkers: 2, freeWorkers: 1 });
      qemu.answer(getHostname, () => encodeString('host'));
      for (const call of calls) link.reply(call, encodeString('host'));
      for (const serial of serials) await client.replyTo(serial);
      expect(await admin.threadpool(own)).to.include({ freeWorkers: 2, jobQueueDepth: 0 });
    });

    it('that hang count as busy, and the answer comes all the same', async () => {
      await start(2);
      const [hanging] = proxy.workers();
      process.kill(hanging!, 'SIGSTOP');
      try {
        const before = performance.now();
        expect(await admin.threadpool(own)).to.include({ nWorkers: 2, freeWorkers: 1 });
        expect(performance.now() - before).to.be.below(200);
      } finally {
        process.kill(hanging!, 'SIGCONT');
      }
      await until(async () => (await admin.threadpool(own)).freeWorkers === 2, { what: 'both' });
    });
  });

  describe('the clients', () => {
    it('keep their ids over reloads, and those of draining workers are there', async () => {
      await start(2);
      const clients = [await proxy.open(), await proxy.open()];
      const before = await ids();
      for (const generation of [2, 3]) {
        proxy.signal('SIGHUP');
        await ready(2 * generation);
        // Two drain; in later rounds those without a client are gone soon.
        await until(() => proxy.workers().length === 4, { what: 'four workers' });
        expect(await ids()).to.deep.equal(before);
        for (const client of clients) expect(await isServed(client)).to.be.true;
      }
      const late = await proxy.open();
      const [lateId] = (await ids()).filter((id) => !before.includes(id));
      expect(lateId).to.be.above(Math.max(...before));
      await admin.disconnect(own, before[0]!);
      await clients[0]!.end;
      await until(async () => (await ids()).length === 2, { what: 'it to be gone' });
      expect(await ids()).to.deep.equal([before[1], lateId]);
      expect(await isServed(late)).to.be.true;
      expect(await isServed(clients[1]!)).to.be.true;
    });

    it('keep their ids when a worker dies whose clients are not theirs', async () => {
      await start(2);
      const clients = [await proxy.open(), await proxy.open()];
      const before = await ids();
      process.kill(proxy.workers()[0]!, 'SIGKILL');
      await until(async () => (await ids()).length === 1, { what: 'one to be lost' });
      await ready(3);
      expect(before).to.include((await ids())[0]);
      expect(clients.filter(({ ended }) => !ended)).to.have.length(1);
      const late = await proxy.open();
      expect((await ids())[1]).to.be.above(Math.max(...before));
      expect(await isServed(late)).to.be.true;
    });

    it('beyond a limit that was set wait, and are served when it is raised', async () => {
      const [port] = (await freePorts(1)) as [number];
      await start(1, {
        listen_tcp: 1,
        tcp_port: String(port),
        auth_tcp: 'none',
        max_anonymous_clients: 1,
      });
      await admin.set(number.serverSetClientLimits, own, unsigned('nclients_max', 1));
      const first = await connectTcp(port);
      expect((await first.openUri('qemu:///system')).status).to.equal(status.ok);
      const second = await connectTcp(port);
      const reply = second.openUri('qemu:///system');
      for (let round = 0; round < 10; round++) {
        expect(await admin.limits(own)).to.include({ nclients: 1, nclients_max: 1 });
      }
      expect(second.bytesReceived).to.equal(0);
      await admin.set(number.serverSetClientLimits, own, unsigned('nclients_max', 2));
      expect((await reply).status).to.equal(status.ok);
      proxy.signal('SIGHUP');
      await until(async () => (await admin.limits(own)).nclients_max === 5000, {
        what: 'the configuration to be in force again',
      });
      for (const client of [first, second]) client.destroy();
    });
  });

  describe('the log', () => {
    it('filters and outputs change in all processes at once', async () => {
      await start(2);
      const file = join(directory, 'log');
      const set = (procedure: number, text: string): Promise<unknown> =>
        admin.ask(procedure, (writer) => writer.bool(true).string(text).unsigned(0));
      await set(number.connectSetLoggingOutputs, `1:file:${file}`);
      expect(readFileSync(file, 'utf8')).to.not.contain('debug');
      await set(number.connectSetLoggingFilters, '1:session');
      const clients = [await proxy.open(), await proxy.open()];
      for (const pid of proxy.workers()) {
        await until(() => readFileSync(file, 'utf8').includes(`: ${pid}: debug : rpc.session`), {
          what: `lines of worker ${pid}`,
        });
      }
      await set(number.connectSetLoggingFilters, '');
      const client = await proxy.open();
      client.destroy();
      for (const other of clients) other.destroy();
      await until(async () => (await ids()).length === 0, { what: 'all to be gone' });
      expect(proxy.log()).to.not.contain('debug');
    });
  });

  describe('its end', () => {
    it('comes with a shutdown, as with a signal, after the reply', async () => {
      await start(2);
      const client = await proxy.open();
      const workers = proxy.workers();
      expect(
        (await admin.admin(number.connectDaemonShutdown, (writer) => writer.unsigned(0))).status,
      ).to.equal(status.ok);
      expect(await proxy.exited).to.equal(0);
      await client.end;
      await admin.end;
      expect(workers.filter((pid) => existsSync(`/proc/${pid}`))).to.deep.equal([]);
      expect(readdirSync(proxy.directory).sort()).to.deep.equal([
        'virtproxyd-cluster.ini',
        'virtproxyd.conf',
      ]);
    });

    it('comes with a time-out that was set, which administrators hold up like other clients', async () => {
      await start(1);
      const client = await proxy.open();
      let exited = false;
      void proxy.exited.then(() => (exited = true));
      const timeout = (seconds: number): Promise<unknown> =>
        admin.ask(number.connectSetDaemonTimeout, (writer) => writer.unsigned(seconds).unsigned(0));
      await timeout(1);
      client.destroy();
      const connectedAt = performance.now();
      await until(() => performance.now() - connectedAt > 2000, { what: 'two seconds' });
      expect(exited).to.be.false;
      await timeout(0);
      await timeout(1);
      const leftAt = performance.now();
      admin.destroy();
      expect(await proxy.exited).to.equal(0);
      expect(performance.now() - leftAt).to.be.within(900, 4000);
    });
  });

  describe('its sockets', () => {
    it('are two, for the daemon alone, and follow the configuration', async () => {
      await start(1);
      const mode = (name: string): number => statSync(adminSocket(name)).mode & 0o777;
      for (const name of ['libvirt', own]) {
        const client = await AdminClient.connect(adminSocket(name));
        expect(await client.servers()).to.deep.equal([own, 'admin']);
        expect(mode(name)).to.equal(0o700);
        client.destroy();
      }
      const conf = join(proxy.directory, 'virtproxyd.conf');
      writeFileSync(
        conf,
        `${readFileSync(conf, 'utf8')}unix_sock_admin_perms = "0770"\nadmin_max_clients = 7\n`,
      );
      proxy.signal('SIGHUP');
      await until(() => mode('libvirt') === 0o770 && mode(own) === 0o770, {
        what: 'the new modes',
      });
      expect(await admin.limits('admin')).to.include({ nclients_max: 7 });
    });

    it('pass to the new program at an upgrade', async () => {
      await start(1);
      const client = await proxy.open();
      proxy.signal('SIGUSR2');
      const successor = await until(
        () => {
          // It is empty for a moment, and 0 would stand for this process and its kin.
          const pid = Number(readFileSync(proxy.pidFile, 'utf8'));
          return pid === proxy.pid ? null : pid;
        },
        { what: 'the new program', deadlineMs: 20_000 },
      );
      try {
        for (const name of ['libvirt', own]) {
          const other = await AdminClient.connect(adminSocket(name));
          expect(await other.clients(own)).to.deep.equal([]);
          other.destroy();
        }
        // Who was connected sees the old one, which has the client still.
        expect(await ids()).to.have.length(1);
        client.destroy();
        await admin.end;
      } finally {
        process.kill(successor, 'SIGTERM');
      }
      await until(() => !existsSync(`/proc/${successor}`), { what: 'the new program to end' });
      expect(existsSync(adminSocket())).to.be.false;
      expect(existsSync(adminSocket(own))).to.be.false;
    });
  });
});
