import { closeSync } from 'node:fs';
import { chmod, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { listenOnPath } from '../../lib/native/listening-socket.js';
import { peerCredentials, type PeerCredentials } from '../../lib/native/peer.js';
import { connectToPath } from '../../lib/native/unix-connection.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import type { ClientProcess } from '../peers/clients.js';
import { account, python, run, startPython, virsh } from '../peers/clients.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory, until } from '../peers/waiting.js';

const reason = whyNoHost();
const user = account('nobody');
const asUser = `[cluster]\nworkers = 1\nworker_user = ${user.name}\n`;

/** A command for each driver that has a daemon. */
const questions = {
  qemu: ['list', '--all'],
  network: ['net-list', '--all'],
  storage: ['pool-list', '--all'],
  secret: ['secret-list'],
  nodedev: ['nodedev-list'],
  nwfilter: ['nwfilter-list'],
  interface: ['iface-list', '--all'],
} as const;
const drivers = Object.keys(questions) as (keyof typeof questions)[];

describe(`workers without root${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(30_000);
  let host: ModularHost;
  let proxy: Proxy;
  let directory: string;
  /** Of the daemons' sockets, before they were closed to all but root. */
  const modes = new Map<string, number>();

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    host = await sharedHost();
    directory = await freshDirectory();
    for (const socket of sockets()) {
      modes.set(socket, (await stat(socket)).mode & 0o777);
      await chmod(socket, 0o700);
    }
    proxy = await Proxy.start({ cluster: asUser + host.routesIni() });
  });

  after(async () => {
    if (reason !== null) return;
    await proxy.stop();
    await rm(directory, { recursive: true });
    for (const [socket, mode] of modes) await chmod(socket, mode);
  });

  /** Those of all daemons. */
  const sockets = (): string[] =>
    drivers.flatMap((driver) => [host.socket(driver), `${host.socket(driver)}-ro`]);

  for (const driver of drivers) {
    const command = questions[driver];
    it(`reach the daemon for ${driver}, whose socket is closed to them`, async () => {
      for (const way of [[], ['-r']]) {
        const uri = way.length === 0 ? proxy.uri() : proxy.readOnlyUri();
        const { code, stderr } = await virsh(uri, [...way, ...command]);
        expect(stderr).to.equal('');
        expect(code).to.equal(0);
      }
      const who = ['--reuid', user.name, '--regid', String(user.gid), '--clear-groups'];
      expect((await run('setpriv', [...who, 'test', '-w', host.socket(driver)])).code).to.equal(1);
    });
  }

  it('are not who connects: that is the primary, which is root', async () => {
    const path = join(directory, 'observer');
    const peers: PeerCredentials[] = [];
    const server = createServer((socket) => {
      peers.push(peerCredentials(handleOf(socket).fd));
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const observed = await Proxy.start({ cluster: `${asUser}[routes]\nqemu = ${path}\n` });
    await virsh(observed.uri(), ['list']);
    server.close();
    await observed.stop();
    expect(peers).to.deep.equal([{ pid: observed.pid, uid: 0, gid: 0 }]);
  });

  it('tell daemons whom they serve', async () => {
    const anyone = await Proxy.start({
      conf: { unix_sock_rw_perms: '0777' },
      cluster: asUser + host.routesIni(),
    });
    const script = 'import libvirt, sys; c = libvirt.open(sys.argv[1]); print(1); sys.stdin.read()';
    const daemon = account('daemon');
    const client = startPython(script, [anyone.uri()], { user: daemon });
    await until(() => client.stdout !== '', { what: 'the client' });
    const seen = await host.daemon('qemu').clientInfo();
    await client.kill();
    await anyone.stop();
    const [its] = seen.filter((info) => info.unix_process_id === String(client.pid));
    expect(its).to.include({ unix_user_name: 'daemon', unix_user_id: String(daemon.uid) });
  });

  it('give the same errors as those that connect themselves', async () => {
    const dead = join(directory, 'dead');
    closeSync(listenOnPath(dead, 1));
    const file = join(directory, 'file');
    await writeFile(file, '');
    const routes = `[routes]\nqemu = ${dead}\nlxc = ${file}/below\nch = ${directory}/none\n`;
    const own = await Proxy.start({ cluster: asUser + routes });
    const roots = await Proxy.start({ cluster: `[cluster]\nworkers = 1\n${routes}` });
    for (const driver of ['qemu', 'lxc', 'ch', 'nosuch']) {
      const [theirs, expected] = await Promise.all(
        [own, roots].map((each) => virsh(each.uri(driver), ['list'])),
      );
      expect(expected?.stderr).to.contain('Failed to connect socket to');
      expect(theirs).to.deep.equal(expected);
    }
    await Promise.all([own.stop(), roots.stop()]);
  });

  it('find the first hypervisor for an empty URI', async () => {
    const uri = `remote+unix:///?socket=${proxy.socket}`;
    const script = 'import libvirt, sys; print(libvirt.open(sys.argv[1]).getType())';
    const { stdout, stderr } = await python(script, [uri]);
    expect(stdout, stderr).to.equal('QEMU\n');
  });

  describe('beside a daemon that accepts nobody', () => {
    const queued: number[] = [];
    let beside: Proxy;

    before(async () => {
      const path = join(directory, 'hung');
      queued.push(listenOnPath(path, 0), connectToPath(path));
      const routes = host.routesIni().replace(/^network = .*$/m, `network = ${path}`);
      beside = await Proxy.start({ cluster: asUser + routes });
    });
    after(async () => {
      await beside.stop();
      for (const fd of queued) closeSync(fd);
    });

    it('fail at once for its clients, as root does, and serve all others', async () => {
      const asking = Array.from({ length: 8 }, () => virsh(beside.uri(), ['net-list']));
      const { code, stderr } = await virsh(beside.uri(), ['list']);
      expect(code, stderr).to.equal(0);
      for (const { stderr: error } of await Promise.all(asking)) {
        expect(error).to.match(/Failed to connect socket to '.*hung': Resource temporarily/);
      }
    });
  });

  describe('that drain', () => {
    const script = `
import libvirt, sys
connection = libvirt.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
print(len(connection.listAllNetworks()), flush=True)
sys.stdin.read()
`;
    async function afterwards(change: (proxy: Proxy) => Promise<void>): Promise<void> {
      const draining = await Proxy.start({ cluster: asUser + host.routesIni() });
      const client: ClientProcess = startPython(script, [draining.uri()]);
      await until(() => client.stdout.includes('open'), { what: 'the client' });
      await change(draining);
      client.write('go\n');
      await until(() => /open\n\d+\n/.test(client.stdout) || client.stderr !== '', {
        what: 'the networks',
      });
      expect(client.stderr).to.equal('');
      await client.kill();
      await draining.stop();
    }

    it('open a further daemon after a reload', () =>
      afterwards(async (draining) => {
        const log = new LogWatch(draining);
        const [before] = draining.workers();
        draining.signal('SIGHUP');
        await until(() => draining.workers().some((pid) => pid !== before), { what: 'others' });
        await until(
          async () => {
            const client = await RawClient.open(draining.socket, 'qemu:///system');
            client.destroy();
            return draining.workers().length === 2;
          },
          { what: `the old one to drain: ${log.lines.join('\n')}` },
        );
      }));

    it('do so when the daemon restarts, too', () =>
      afterwards(async (draining) => {
        draining.signal('SIGHUP');
        await until(() => draining.workers().length === 2, { what: 'the new worker' });
        await host.daemon('qemu').restart();
      }));
  });
});
