import { once } from 'node:events';
import { existsSync, renameSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { Service } from '../lifecycle/service.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { ask, Scrape, type MetricsPlace } from '../peers/scrape.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const listen = (where: string | number): string =>
  `[metrics]\nlisten = ${typeof where === 'number' ? `127.0.0.1:${where}` : where}\n`;

/** Whether nobody listens there any more. */
const isShut = (place: MetricsPlace): Promise<boolean> =>
  ask(place, '/healthz').then(
    () => false,
    () => true,
  );

/** Leaves a socket's file that nobody listens on any more. */
async function leaveStaleSocket(path: string): Promise<void> {
  const server = createServer().listen(path);
  await once(server, 'listening');
  // Node removes the file of a server that it closes.
  renameSync(path, `${path}.kept`);
  await once(server.close(), 'close');
  renameSync(`${path}.kept`, path);
}

async function isServed(place: MetricsPlace): Promise<void> {
  expect((await ask(place, '/healthz')).body).to.equal('ok\n');
}

describe('the listener for metrics', function () {
  this.timeout(90_000);
  let service: Service | null = null;

  afterEach(async () => {
    await service?.end();
    service = null;
  });

  /** The process that answers. */
  const answering = async (place: MetricsPlace): Promise<number> =>
    (JSON.parse((await ask(place, '/status.json')).body) as { readonly pid: number }).pid;

  it('is moved, closed and opened by reloads', async () => {
    const [first = 0, second = 0] = await freePorts(2);
    service = await Service.start({ cluster: listen(first) });
    await isServed({ port: first });
    await service.configureCluster(listen(second));
    await service.reload();
    await isServed({ port: second });
    await until(() => isShut({ port: first }), { what: 'the old port to be shut' });
    await service.configureCluster('');
    await service.reload();
    await until(() => isShut({ port: second }), { what: 'the other port to be shut' });
    const client = await service.proxy.open();
    await service.configureCluster(listen(first));
    await service.reload();
    expect((await Scrape.of({ port: first })).value('virtproxyd_generation')).to.equal(4);
    client.destroy();
  });

  it('at a name listens on all of its addresses', async () => {
    const [port = 0] = await freePorts(1);
    service = await Service.start({ cluster: listen(`localhost:${port}`) });
    await isServed({ port });
  });

  it('may be a UNIX socket: for its owner alone, over a stale one, gone at the end', async () => {
    const directory = await freshDirectory();
    const socketPath = join(directory, 'metrics-sock');
    const place = { socketPath };
    await leaveStaleSocket(socketPath);
    service = await Service.start({ cluster: listen(socketPath) });
    const there = statSync(socketPath);
    expect(there.mode & 0o777).to.equal(0o600);
    await isServed(place);
    const old = await service.proxy.open();
    await service.upgrade();
    expect(statSync(socketPath).ino).to.equal(there.ino);
    expect(await answering(place)).to.equal(service.pid);
    old.destroy();
    await service.end();
    service = null;
    expect(existsSync(socketPath)).to.be.false;
    rmdirSync(directory);
  });

  it('passes to the new version at an upgrade, whose counts begin anew', async () => {
    const [port = 0] = await freePorts(1);
    service = await Service.start({ cluster: listen(port) });
    const old = await service.proxy.open();
    const before = service.pid;
    expect(await answering({ port })).to.equal(before);
    for (let each = 1; each <= 2; each++) {
      const pid = await service.upgrade();
      await until(async () => (await answering({ port })) === pid, { what: 'the new version' });
      expect(service.processes()).to.include(before);
      expect(
        await Promise.all(Array.from({ length: 20 }, () => answering({ port }))),
      ).to.deep.equal(Array<number>(20).fill(pid));
    }
    expect((await Scrape.of({ port })).value('virtproxyd_generation')).to.equal(1);
    old.destroy();
    await until(() => !service?.processes().includes(before), { what: 'the old one to end' });
    await isServed({ port });
  });

  it('is closed by an upgrade to a configuration without it', async () => {
    const [port = 0] = await freePorts(1);
    service = await Service.start({ cluster: listen(port) });
    await service.configureCluster('');
    await service.upgrade();
    await until(() => isShut({ port }), { what: 'the port to be shut' });
  });

  describe('that cannot be opened', () => {
    let taken: number;
    const holder = createServer();

    before(async () => {
      await once(holder.listen(0, '127.0.0.1'), 'listening');
      taken = (holder.address() as AddressInfo).port;
    });
    after(() => once(holder.close(), 'close'));

    const faults: Record<string, { where: (directory: string) => string | number; says: RegExp }> =
      {
        'a port that is taken': {
          where: () => taken,
          says: /\[metrics\] listen: Cannot listen on '127.0.0.1:\d+': .*EADDRINUSE.*stop the program/,
        },
        'an address of another host': {
          where: () => '192.0.2.1:9177',
          says: /\[metrics\] listen: Cannot listen on '192.0.2.1:9177': .*EADDRNOTAVAIL/,
        },
        'a name without address': {
          where: () => 'no-such-host.invalid:9177',
          says: /\[metrics\] listen: The name 'no-such-host.invalid' has no address/,
        },
        'a directory that is missing': {
          where: (directory) => join(directory, 'missing/metrics-sock'),
          says: /\[metrics\] listen: Cannot listen on '.*missing\/metrics-sock': .*ENOENT.*make the dir/,
        },
        'a file that is no socket': {
          where: (directory) => {
            const path = join(directory, 'file.conf');
            writeFileSync(path, '');
            return path;
          },
          says: /\[metrics\] listen: Cannot listen on '.*file.conf': it is no socket; remove it/,
        },
        'what is no address': {
          where: () => 'nonsense',
          says: /listen must be ADDRESS:PORT or the absolute path/,
        },
      };
    const withLine = ({ source }: RegExp): RegExp =>
      new RegExp(`virtproxyd-cluster\\.ini:\\d+: ${source}`);

    for (const [what, { where, says }] of Object.entries(faults)) {
      it(`for ${what} is named with file, line and key, and at a reload the old one stays`, async () => {
        const [port = 0] = await freePorts(1);
        service = await Service.start({ cluster: listen(port) });
        await service.configureCluster(listen(where(service.proxy.directory)));
        service.signal('SIGHUP');
        await service.says(withLine(says));
        await isServed({ port });
        expect((await Scrape.of({ port })).value('virtproxyd_generation')).to.equal(1);
      });

      it(`for ${what} ends a start`, async () => {
        const directory = await freshDirectory();
        const started = Proxy.start({ directory, cluster: listen(where(directory)) });
        const said = await started.then(
          async (proxy) => {
            await proxy.stop();
            return 'started';
          },
          (error: unknown) => (error as Error).message,
        );
        expect(said).to.match(withLine(says));
      });
    }
  });

  it('costs the proxy nothing when it is flooded by those who never ask', async () => {
    const directory = await freshDirectory();
    const daemon = await StandInDaemon.listen(join(directory, 'sock'));
    const [port = 0] = await freePorts(1);
    const proxy = await Proxy.start({
      directory,
      cluster: `${listen(port)}[routes]\nqemu = ${daemon.path}\n`,
    });
    try {
      const silent: Socket[] = [];
      for (let each = 0; each < 200; each++) {
        const socket = createConnection({ port, host: '127.0.0.1' });
        silent.push(socket);
        // One after the other, so that the kernel's queue has room for each.
        await once(socket, 'connect');
        socket.on('error', () => undefined).resume();
      }
      await until(() => silent.filter(({ destroyed }) => destroyed).length >= 200 - 64, {
        what: 'all but the newest to be closed',
      });
      const client = await proxy.open();
      await isServed({ port });
      client.destroy();
      for (const socket of silent) socket.destroy();
    } finally {
      await proxy.stop();
      await daemon.stop();
    }
  });
});
