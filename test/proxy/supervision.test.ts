import { existsSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { encodeString, procedure } from '../../lib/rpc/session-messages.js';
import { Proxy, runningProcesses, startProgram, workersOf } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const getHostname = 59;

describe('the life of virtproxyd', function () {
  this.timeout(30_000);
  let directory: string;
  let qemu: StandInDaemon;
  let foreign: StandInDaemon | null = null;
  let proxies: Proxy[] = [];

  beforeEach(async () => {
    directory = await freshDirectory();
    qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    qemu.answer(getHostname, () => encodeString('host'));
  });

  afterEach(async () => {
    await Promise.all(proxies.map((proxy) => proxy.stop('SIGKILL')));
    proxies = [];
    await qemu.stop();
    await foreign?.stop();
    foreign = null;
    await rm(directory, { recursive: true, force: true });
  });

  /**
   * A proxy whose files are in a directory of their own below the test's, so that they can be told
   * apart.
   */
  async function started(
    options: { name?: string; workers?: number; args?: string[]; cluster?: string } = {},
  ): Promise<Proxy> {
    const { name = 'run', workers = 1, args = [], cluster = '' } = options;
    const proxy = await Proxy.start({
      directory: join(directory, name),
      cluster: `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = ${workers}\n${cluster}`,
      args: ['--verbose', ...args],
    });
    proxies.push(proxy);
    return proxy;
  }

  const isServed = async (client: RawClient): Promise<boolean> =>
    !client.ended && (await client.call(getHostname)).payload.equals(encodeString('host'));

  /** What the program leaves beside its configuration. */
  const leftBehind = async (proxy: Proxy): Promise<string[]> =>
    (await readdir(proxy.directory)).filter((name) => !/\.(conf|ini)$/.test(name));

  describe('when a worker is killed', () => {
    it('its clients see the end, the others nothing, and new ones are served at once', async () => {
      const proxy = await started({ workers: 2 });
      await until(() => proxy.workers().length === 2, { what: 'both workers' });
      // Each client goes to the ready worker with the fewest: both must be ready to have some.
      await until(
        () => [...proxy.log().matchAll(/worker \d+ of generation \d+ is ready/g)].length === 2,
        {
          what: 'both workers to be ready',
        },
      );
      const clients: RawClient[] = [];
      for (let each = 0; each < 6; each++) clients.push(await proxy.open());
      const [victim, survivor] = proxy.workers();
      process.kill(victim!, 'SIGKILL');
      await until(() => clients.filter(({ ended }) => ended).length === 3, {
        what: 'three clients to see the end',
      });
      const killedAt = performance.now();
      for (let each = 0; each < 10; each++) {
        const fresh = await proxy.open();
        expect(await isServed(fresh)).to.be.true;
        fresh.destroy();
      }
      for (const client of clients.filter(({ ended }) => !ended)) {
        expect(await isServed(client)).to.be.true;
      }
      await until(() => proxy.workers().length === 2, { what: 'the successor' });
      await until(
        () => [...proxy.log().matchAll(/worker \d+ of generation \d+ is ready/g)].length === 3,
        {
          what: 'the successor to be ready',
        },
      );
      expect(performance.now() - killedAt).to.be.below(2000);
      expect(proxy.workers()).to.include(survivor).and.to.not.include(victim);
      expect(clients.filter(({ ended }) => ended)).to.have.length(3);
      for (const client of clients) client.destroy();
    });

    it('the daemons see the end of its connections', async () => {
      const proxy = await started();
      await proxy.open();
      process.kill(proxy.workers()[0]!, 'SIGKILL');
      await (
        await qemu.connection()
      ).end;
    });

    it('and was the only one, new clients wait for its successor', async () => {
      const proxy = await started();
      for (let round = 0; round < 2; round++) {
        const [worker] = proxy.workers();
        process.kill(worker!, 'SIGKILL');
        const client = await proxy.open();
        expect(await isServed(client)).to.be.true;
        client.destroy();
        expect(proxy.workers()).to.not.include(worker);
      }
    });
  });

  describe('its files', () => {
    it('the PID file names it and holds a second instance off, which harms nothing', async () => {
      const proxy = await started();
      expect(readFileSync(proxy.pidFile, 'utf8').trim()).to.equal(String(proxy.pid));
      const client = await proxy.open();
      const other = join(directory, 'other');
      await mkdir(other);
      const conf = join(other, 'virtproxyd.conf');
      await writeFile(conf, `unix_sock_dir = "${other}"\nauth_unix_rw = "none"\n`);
      const { code, stderr } = await startProgram(['-f', conf, '-p', proxy.pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`Failed to acquire pid file '${proxy.pidFile}'`);
      expect(await readdir(other)).to.deep.equal(['virtproxyd.conf']);
      expect(readFileSync(proxy.pidFile, 'utf8').trim()).to.equal(String(proxy.pid));
      expect(await isServed(client)).to.be.true;
      expect(await isServed(await proxy.open())).to.be.true;
    });

    it('the sockets of an instance that lives are not taken from it', async () => {
      const proxy = await started();
      const conf = join(proxy.directory, 'virtproxyd.conf');
      const pidFile = join(directory, 'second.pid');
      const { code, stderr } = await startProgram(['-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`'${proxy.socket}'`).and.to.contain('another process listens');
      expect(existsSync(pidFile)).to.be.false;
      expect(await isServed(await proxy.open())).to.be.true;
    });

    it('a live socket of another program is not taken from it', async () => {
      const run = join(directory, 'run');
      await mkdir(run);
      foreign = await StandInDaemon.listen(join(run, 'libvirt-sock'));
      const inode = statSync(foreign.path).ino;
      const pidFile = join(directory, 'pid');
      const conf = join(directory, 'virtproxyd.conf');
      await writeFile(conf, `unix_sock_dir = "${run}"\nauth_unix_rw = "none"\n`);
      const { code, stderr } = await startProgram(['-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`'${foreign.path}'`).and.to.contain('another process listens');
      expect(statSync(foreign.path).ino).to.equal(inode);
      expect(await readdir(run)).to.deep.equal(['libvirt-sock']);
      expect(existsSync(pidFile)).to.be.false;
    });

    it('stale ones of an instance that was killed are replaced', async () => {
      const first = await started();
      const client = await first.open();
      const workers = first.workers();
      first.signal('SIGKILL');
      await first.exited;
      await client.end;
      await until(() => !runningProcesses().some(({ pid }) => workers.includes(pid)), {
        what: 'the workers to end with their primary',
        deadlineMs: 1000,
      });
      expect(existsSync(first.socket)).to.be.true;
      expect(existsSync(first.pidFile)).to.be.true;
      const second = await started();
      expect(readFileSync(second.pidFile, 'utf8').trim()).to.equal(String(second.pid));
      expect(await isServed(await second.open())).to.be.true;
    });

    it('a file in the place of a socket is left alone', async () => {
      const run = join(directory, 'run');
      await mkdir(run);
      const conf = join(directory, 'virtproxyd.conf');
      await writeFile(conf, `unix_sock_dir = "${run}"\nauth_unix_rw = "none"\n`);
      await writeFile(join(run, 'libvirt-sock'), 'precious');
      const pidFile = join(directory, 'pid');
      const { code, stderr } = await startProgram(['-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(join(run, 'libvirt-sock'));
      expect(readFileSync(join(run, 'libvirt-sock'), 'utf8')).to.equal('precious');
      expect(await readdir(run)).to.deep.equal(['libvirt-sock']);
      expect(existsSync(pidFile)).to.be.false;
    });

    it('have the permissions that the configuration says', async () => {
      const proxy = await Proxy.start({
        directory: join(directory, 'run'),
        conf: { unix_sock_rw_perms: '0720', unix_sock_ro_perms: '0702' },
      });
      proxies.push(proxy);
      const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
      expect(mode(proxy.socket)).to.equal('720');
      if (process.getuid?.() === 0) expect(mode(proxy.readOnlySocket)).to.equal('702');
      expect(mode(proxy.pidFile)).to.equal('644');
    });
  });

  describe('its end', () => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const) {
      it(`${signal} closes clients, removes everything and exits 0`, async () => {
        const proxy = await started({ workers: 2 });
        const clients = [
          await proxy.open(),
          await proxy.open(),
          await RawClient.connect(proxy.socket),
        ];
        const workers = proxy.workers();
        const before = performance.now();
        proxy.signal(signal);
        expect(await proxy.exited).to.equal(0);
        expect(performance.now() - before).to.be.below(2000);
        await Promise.all(clients.map(({ end }) => end));
        expect(await leftBehind(proxy)).to.deep.equal([]);
        expect(runningProcesses().filter(({ pid }) => workers.includes(pid))).to.deep.equal([]);
      });
    }

    it('lets the replies to running calls out first', async () => {
      qemu.answer(getHostname, () => null);
      const proxy = await started();
      const client = await proxy.open();
      const serial = client.begin(getHostname);
      const link = await qemu.connection();
      const call = await link.takeCall(getHostname);
      proxy.signal('SIGTERM');
      await until(() => proxy.log().includes('stopping'), { what: 'the proxy to stop' });
      const refused = await RawClient.connect(proxy.socket).catch(() => null);
      link.reply(call, encodeString('at last'));
      expect((await client.replyTo(serial)).payload).to.deep.equal(encodeString('at last'));
      await client.end;
      await refused?.end;
      expect(await proxy.exited).to.equal(0);
    });

    it('waits for a call that takes too long only as long as stop_timeout', async () => {
      qemu.answer(getHostname, () => null);
      const proxy = await started({ cluster: 'stop_timeout = 1\n' });
      const client = await proxy.open();
      client.begin(getHostname);
      await (await qemu.connection()).takeCall(getHostname);
      const before = performance.now();
      proxy.signal('SIGTERM');
      expect(await proxy.exited).to.equal(0);
      expect(performance.now() - before).to.be.within(900, 4000);
      await client.end;
      expect(await leftBehind(proxy)).to.deep.equal([]);
    });

    it('comes at once with a second signal', async () => {
      qemu.answer(getHostname, () => null);
      const proxy = await started({ cluster: 'stop_timeout = 60\n' });
      const client = await proxy.open();
      client.begin(getHostname);
      await (await qemu.connection()).takeCall(getHostname);
      proxy.signal('SIGTERM');
      await until(() => proxy.log().includes('stopping'), { what: 'the proxy to stop' });
      proxy.signal('SIGINT');
      expect(await proxy.exited).to.equal(0);
      await client.end;
      expect(await leftBehind(proxy)).to.deep.equal([]);
    });

    it('comes with --timeout when the last client has been gone for so long', async () => {
      const proxy = await started({ args: ['--timeout', '1'] });
      const client = await proxy.open();
      let exited = false;
      void proxy.exited.then(() => (exited = true));
      const connectedAt = performance.now();
      // Three time-outs long a connected client keeps it.
      await until(() => performance.now() - connectedAt > 3000, { what: 'three seconds' });
      expect(exited).to.be.false;
      expect(await isServed(client)).to.be.true;
      const leftAt = performance.now();
      client.destroy();
      expect(await proxy.exited).to.equal(0);
      expect(performance.now() - leftAt).to.be.within(900, 3000);
      expect(await leftBehind(proxy)).to.deep.equal([]);
    });
  });

  describe('in the background', () => {
    let conf: string;
    let pidFile: string;
    let socket: string;
    let log: string;
    let daemon: number | null;

    beforeEach(async () => {
      conf = join(directory, 'virtproxyd.conf');
      pidFile = join(directory, 'virtproxyd.pid');
      socket = join(directory, 'libvirt-sock');
      log = join(directory, 'log');
      daemon = null;
      // The default output in the background is a file of the machine's.
      const outputs = `log_level = 2\nlog_outputs = "2:file:${log}"\n`;
      await writeFile(conf, `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\n${outputs}`);
      const routes = `[routes]\nqemu = ${qemu.path}\n`;
      await writeFile(join(directory, 'virtproxyd-cluster.ini'), routes);
    });

    afterEach(async () => {
      if (daemon !== null) await ended(daemon, 'SIGKILL');
    });

    async function ended(pid: number, signal: NodeJS.Signals): Promise<void> {
      if (runningProcesses().some((process) => process.pid === pid)) process.kill(pid, signal);
      await until(() => !runningProcesses().some((process) => process.pid === pid), {
        what: 'the daemon to end',
      });
    }

    it('the command returns 0 once it serves; it leaves nothing behind at its end', async () => {
      const command = startProgram(['-d', '-f', conf, '-p', pidFile]);
      const { code, stdout, stderr } = await command.finished;
      expect(code, stderr).to.equal(0);
      daemon = Number(readFileSync(pidFile, 'utf8'));
      const client = await RawClient.open(socket, 'qemu:///system');
      expect(await isServed(client)).to.be.true;
      expect(`${stdout}${stderr}`).to.equal('');
      expect(daemon).to.not.equal(command.pid);
      expect(readlinkSync(`/proc/${daemon}/cwd`)).to.equal('/');
      for (const standard of [0, 1, 2]) {
        expect(readlinkSync(`/proc/${daemon}/fd/${standard}`)).to.equal('/dev/null');
      }
      expect(sessionOf(daemon)).to.equal(daemon);
      const servingLine = `serving on unix:${socket}`;
      await until(() => readFileSync(log, 'utf8').includes(servingLine), { what: servingLine });
      const workers = workersOf(daemon);
      expect(workers).to.not.be.empty;
      await ended(daemon, 'SIGTERM');
      await client.end;
      const left = ['log', 'virtproxyd-cluster.ini', 'virtproxyd.conf', 'virtqemud-sock'];
      expect((await readdir(directory)).sort()).to.deep.equal(left);
      expect(runningProcesses().filter(({ pid }) => workers.includes(pid))).to.deep.equal([]);
    });

    it('the command fails with the reason when the configuration is wrong', async () => {
      await writeFile(conf, 'max_clients = "many"\n');
      const { code, stderr } = await startProgram(['-d', '-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`${conf}:1`).and.to.contain('max_clients');
      expect(existsSync(pidFile)).to.be.false;
    });

    it('the command fails with the reason when another instance is there', async () => {
      expect((await startProgram(['-d', '-f', conf, '-p', pidFile]).finished).code).to.equal(0);
      daemon = Number(readFileSync(pidFile, 'utf8'));
      const { code, stderr } = await startProgram(['-d', '-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`Failed to acquire pid file '${pidFile}'`);
      const client = await RawClient.connect(socket);
      expect((await client.call(procedure.authList)).status).to.equal(0);
      client.destroy();
    });

    it('the command fails with the reason when a socket is in use', async () => {
      foreign = await StandInDaemon.listen(socket);
      const { code, stderr } = await startProgram(['-d', '-f', conf, '-p', pidFile]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`'${socket}'`);
      const client = await RawClient.connect(socket);
      await until(() => (foreign?.connections.length ?? 0) >= 1, {
        what: 'the other program to be asked',
      });
      client.destroy();
      expect(existsSync(pidFile)).to.be.false;
    });
  });
});

/** The id of a process's session; its leader's is its own. */
function sessionOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]);
}
