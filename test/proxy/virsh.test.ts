import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { ClientProcess, socketUri, virsh, type Finished } from '../peers/clients.js';
import { drivers, type Driver } from '../peers/daemon.js';
import {
  guestXml,
  networkXml,
  nwfilterXml,
  poolXml,
  secretXml,
  volumeXml,
} from '../peers/guest.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { until } from '../peers/waiting.js';

const reason = whyNoHost();
const mebibyte = 1024 * 1024;

describe(`virsh through the proxy${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(30_000);
  let host: ModularHost;
  let proxy: Proxy;

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    host = await sharedHost();
    proxy = await Proxy.start({ cluster: host.routesIni() });
  });

  after(() => (reason === null ? proxy.stop() : null));

  /** Runs virsh on qemu:///system through the proxy and expects it to succeed. */
  async function ask(...args: string[]): Promise<string> {
    return succeeded(await virsh(proxy.uri(), args));
  }

  /** Has virsh read `text` where it takes a file. */
  async function give(text: string, ...args: string[]): Promise<string> {
    return succeeded(await virsh(proxy.uri(), [...args, '/dev/stdin'], { input: text }));
  }

  /**
   * The drivers whose daemons, asked directly, name `thing`. Every one has all drivers, and could
   * hold it.
   */
  async function whoKnows(thing: string, ...command: string[]): Promise<Driver[]> {
    const answers = await Promise.all(
      drivers.map(async (driver) => {
        const direct = socketUri('qemu', host.daemon(driver).socket);
        return succeeded(await virsh(direct, command));
      }),
    );
    return drivers.filter((_, index) => answers[index]!.includes(thing));
  }

  it('defines, starts and destroys a guest, in the qemu daemon alone', async () => {
    await give(guestXml({ name: 'virsh-guest' }), 'define');
    expect(await ask('list', '--all', '--name')).to.contain('virsh-guest');
    expect(await whoKnows('virsh-guest', 'list', '--all', '--name')).to.deep.equal(['qemu']);
    await ask('start', 'virsh-guest');
    expect(await ask('list', '--name')).to.contain('virsh-guest');
    expect(await ask('domstate', 'virsh-guest')).to.contain('running');
    expect(await host.daemon('qemu').calls('virDomainCreate')).to.be.above(0);
    await ask('destroy', 'virsh-guest');
    expect(await ask('domstate', 'virsh-guest')).to.contain('shut off');
    await ask('undefine', 'virsh-guest');
    expect(await whoKnows('virsh-guest', 'list', '--all', '--name')).to.deep.equal([]);
  });

  it('shows a guest’s console, until the escape character', async () => {
    await give(guestXml({ name: 'virsh-talker' }), 'define');
    const args = ['-c', proxy.uri(), 'start', '--console', 'virsh-talker'];
    const console = new ClientProcess('virsh', args, { terminal: true });
    await until(() => console.stdout.includes('SeaBIOS'), { what: 'the BIOS on the console' });
    console.write('\x1d');
    expect((await console.finished).code).to.equal(0);
    await ask('destroy', 'virsh-talker');
    await ask('undefine', 'virsh-talker');
  });

  it('ends a guest’s console when the guest ends', async () => {
    await give(guestXml({ name: 'virsh-mute' }), 'define');
    await ask('start', '--paused', 'virsh-mute');
    const args = ['-c', proxy.uri(), 'console', 'virsh-mute'];
    const console = new ClientProcess('virsh', args, { terminal: true });
    await until(() => console.stdout.includes('Connected to domain'), { what: 'the console' });
    await ask('destroy', 'virsh-mute');
    await console.finished;
    await ask('undefine', 'virsh-mute');
  });

  it('defines, starts and destroys a network, in the network daemon alone', async () => {
    await give(networkXml('virsh-net', 'virshnet0'), 'net-define');
    expect(await whoKnows('virsh-net', 'net-list', '--all', '--name')).to.deep.equal(['network']);
    await ask('net-start', 'virsh-net');
    expect(await ask('net-list', '--name')).to.contain('virsh-net');
    expect(await ask('net-info', 'virsh-net')).to.match(/Bridge: +virshnet0/);
    await ask('net-destroy', 'virsh-net');
    await ask('net-undefine', 'virsh-net');
    expect(await ask('net-list', '--all', '--name')).to.not.contain('virsh-net');
    expect(await host.daemon('network').calls('virNetworkCreate')).to.equal(1);
    expect(await host.daemon('qemu').calls('virNetworkCreate')).to.equal(0);
  });

  it('takes a pool and its volume through their lives, with 64 MiB up and down', async () => {
    const target = join(proxy.directory, 'pool');
    await mkdir(target);
    await give(poolXml('virsh-pool', target), 'pool-define');
    expect(await whoKnows('virsh-pool', 'pool-list', '--all', '--name')).to.deep.equal(['storage']);
    await ask('pool-start', 'virsh-pool');
    await give(volumeXml('volume'), 'vol-create', 'virsh-pool');
    expect(await ask('vol-list', 'virsh-pool')).to.contain('volume');

    const content = randomBytes(64 * mebibyte);
    const up = join(proxy.directory, 'up');
    const down = join(proxy.directory, 'down');
    await writeFile(up, content);
    await ask('vol-upload', '--pool', 'virsh-pool', 'volume', up);
    expect((await readFile(join(target, 'volume'))).equals(content)).to.be.true;
    await ask('vol-download', '--pool', 'virsh-pool', 'volume', down);
    expect((await readFile(down)).equals(content)).to.be.true;

    const piece = ['--offset', '1000003', '--length', '5000011'];
    await ask('vol-download', ...piece, '--pool', 'virsh-pool', 'volume', down);
    expect((await readFile(down)).equals(content.subarray(1_000_003, 6_000_014))).to.be.true;

    await ask('vol-delete', '--pool', 'virsh-pool', 'volume');
    await ask('pool-destroy', 'virsh-pool');
    await ask('pool-undefine', 'virsh-pool');
    expect(await whoKnows('virsh-pool', 'pool-list', '--all', '--name')).to.deep.equal([]);
  });

  it('passes a sparse volume’s holes as holes, both ways', async () => {
    const target = join(proxy.directory, 'sparse-pool');
    await mkdir(target);
    await give(poolXml('virsh-sparse', target), 'pool-define');
    await ask('pool-start', 'virsh-sparse');
    await give(volumeXml('volume'), 'vol-create', 'virsh-sparse');

    const up = join(proxy.directory, 'sparse-up');
    const down = join(proxy.directory, 'sparse-down');
    const file = await open(up, 'w');
    await file.truncate(64 * mebibyte);
    for (const at of [1, 20, 63])
      await file.write(randomBytes(mebibyte), 0, mebibyte, at * mebibyte);
    await file.close();
    await ask('vol-upload', '--sparse', '--pool', 'virsh-sparse', 'volume', up);
    await ask('vol-download', '--sparse', '--pool', 'virsh-sparse', 'volume', down);
    const content = await readFile(up);
    for (const path of [join(target, 'volume'), down]) {
      expect((await readFile(path)).equals(content), path).to.be.true;
      expect((await stat(path)).blocks * 512, `${path} is sparse`).to.be.below(8 * mebibyte);
    }
    await ask('pool-destroy', 'virsh-sparse');
    await ask('pool-undefine', 'virsh-sparse');
  });

  it('tells why an upload failed', async () => {
    const target = join(proxy.directory, 'small-pool');
    await mkdir(target);
    await give(poolXml('virsh-small', target), 'pool-define');
    await ask('pool-start', 'virsh-small');
    await give(volumeXml('volume', mebibyte), 'vol-create', 'virsh-small');
    const big = join(proxy.directory, 'big');
    await writeFile(big, Buffer.alloc(8 * mebibyte));
    const args = ['vol-upload', '--pool', 'virsh-small', 'volume', big];
    const direct = await host.daemon('storage').virsh(...args);
    const proxied = await virsh(proxy.uri(), args);
    expect(proxied).to.deep.equal(direct);
    await ask('pool-destroy', 'virsh-small');
    await ask('pool-undefine', 'virsh-small');
  });

  it('keeps a secret’s value in the secret daemon alone', async () => {
    const uuid = 'd2b4b5a8-3c1e-4f0a-9b57-6d3d5d1c7e55';
    await give(secretXml(uuid, '/virsh/volume'), 'secret-define');
    expect(await whoKnows(uuid, 'secret-list')).to.deep.equal(['secret']);
    await ask('secret-set-value', uuid, Buffer.from('sesame').toString('base64'));
    expect(await ask('secret-get-value', '--plain', uuid)).to.contain('sesame');
    await ask('secret-undefine', uuid);
    expect(await ask('secret-list')).to.not.contain(uuid);
  });

  it('defines a filter in the nwfilter daemon alone', async () => {
    await give(nwfilterXml('virsh-filter'), 'nwfilter-define');
    expect(await ask('nwfilter-list')).to.contain('virsh-filter');
    expect(await whoKnows('virsh-filter', 'nwfilter-list')).to.deep.equal(['nwfilter']);
    await ask('nwfilter-undefine', 'virsh-filter');
  });

  for (const [driver, command, called] of [
    ['qemu', 'list', 'virConnectListAllDomains'],
    ['network', 'net-list', 'virConnectListAllNetworks'],
    ['storage', 'pool-list', 'virConnectListAllStoragePools'],
    ['nodedev', 'nodedev-list', 'virConnectListAllNodeDevices'],
    ['secret', 'secret-list', 'virConnectListAllSecrets'],
    ['nwfilter', 'nwfilter-list', 'virConnectListAllNWFilters'],
    ['interface', 'iface-list', 'virConnectListAllInterfaces'],
  ] as const) {
    it(`asks the ${driver} daemon, and no other, for ${command}`, async () => {
      const count = (): Promise<number[]> =>
        Promise.all(drivers.map((each) => host.daemon(each).calls(called)));
      const before = await count();
      const answers = await Promise.all([
        virsh(proxy.uri(), [command]),
        virsh(proxy.uri(driver), [command]),
        virsh(proxy.readOnlyUri(driver), ['--readonly', command]),
      ]);
      const direct = await host.daemon(driver).virsh(command);
      expect(answers).to.deep.equal([direct, direct, direct]);
      const grown = (await count()).map((calls, index) => calls - before[index]!);
      expect(grown).to.deep.equal(drivers.map((each) => (each === driver ? 4 : 0)));
    });
  }

  it('says the same as the daemon when something is not there', async () => {
    for (const [driver, ...command] of [
      ['qemu', 'dominfo', 'nothing'],
      ['network', 'net-info', 'nothing'],
      ['storage', 'pool-info', 'nothing'],
      ['nwfilter', 'nwfilter-dumpxml', 'nothing'],
      ['nodedev', 'nodedev-dumpxml', 'nothing'],
      ['interface', 'iface-dumpxml', 'nothing'],
      ['secret', 'secret-dumpxml', '00000000-0000-0000-0000-000000000000'],
    ] as const) {
      const direct = await host.daemon(driver).virsh(...command);
      expect(direct.code).to.equal(1);
      expect(await virsh(proxy.uri(), command)).to.deep.equal(direct);
    }
  });
});

function succeeded({ code, stdout, stderr }: Finished): string {
  expect(code, `${stdout}${stderr}`).to.equal(0);
  return stdout;
}
