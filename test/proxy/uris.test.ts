import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { python, virsh } from '../peers/clients.js';
import { guestXml, networkXml } from '../peers/guest.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory } from '../peers/waiting.js';

const reason = whyNoHost();

describe(`URIs of libvirt's own clients${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(30_000);
  let host: ModularHost;
  let proxy: Proxy;

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    host = await sharedHost();
    const missing = '/nonexistent/virtlxcd-sock';
    proxy = await Proxy.start({ cluster: `${host.routesIni()}lxc = ${missing}\n` });
  });

  after(() => (reason === null ? proxy.stop() : null));

  it('an empty one leads to the first hypervisor whose daemon is there', async () => {
    // By the scheme `remote` libvirt's client asks the other side to choose.
    const uri = `remote+unix:///?socket=${proxy.socket}`;
    const { code, stdout, stderr } = await virsh(uri, ['list', '--all']);
    expect(code, `${stdout}${stderr}`).to.equal(0);
    const script = 'import libvirt, sys; print(libvirt.open(sys.argv[1]).getType())';
    expect((await python(script, [uri])).stdout).to.equal('QEMU\n');
    const readOnly = `remote+unix:///?socket=${proxy.readOnlySocket}`;
    expect((await virsh(readOnly, ['-r', 'list', '--all'])).code).to.equal(0);
  });

  it('an empty one finds nothing where no hypervisor is', async () => {
    const empty = await Proxy.start({ cluster: '[routes]\nqemu = /nonexistent/qemu\n' });
    const { code, stderr } = await virsh(`remote+unix:///?socket=${empty.socket}`, ['list']);
    await empty.stop();
    expect(code).to.equal(1);
    expect(stderr).to.contain('no connection driver available');
  });

  for (const [what, driver, path] of [
    ['a scheme that nobody knows', 'nosuch', '/run/libvirt/virtnosuchd-sock'],
    ['a daemon that is not there', 'lxc', '/nonexistent/virtlxcd-sock'],
  ] as const) {
    it(`${what}: the error names the socket`, async () => {
      const { code, stderr } = await virsh(proxy.uri(driver), ['list']);
      expect(code).to.equal(1);
      expect(stderr).to.contain(`Failed to connect socket to '${path}': No such file or directory`);
    });
  }

  it('a socket file that nobody listens on: the error says so', async () => {
    const directory = await freshDirectory();
    const path = join(directory, 'dead');
    const cut = await Proxy.start({ cluster: `[routes]\nqemu = ${path}\n` });
    const script = 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])';
    expect((await python(script, [path])).code).to.equal(0);
    const { code, stderr } = await virsh(cut.uri(), ['list']);
    await cut.stop();
    await rm(directory, { recursive: true });
    expect(code).to.equal(1);
    expect(stderr).to.contain(`Failed to connect socket to '${path}': Connection refused`);
  });

  describe('with a monolithic libvirtd behind [routes] default', () => {
    let mono: Proxy;

    before(async function () {
      if (reason !== null) this.skip();
      // The modular daemons' libvirtd has every driver: any of them will do.
      const { socket } = host.daemon('qemu');
      mono = await Proxy.start({ cluster: `[routes]\ndefault = ${socket}\n` });
    });

    after(() => (reason === null ? mono.stop() : null));

    it('everything is in that one daemon', async () => {
      const qemu = host.daemon('qemu');
      const define = async (text: string, command: string): Promise<void> => {
        const { code, stderr } = await virsh(mono.uri(), [command, '/dev/stdin'], { input: text });
        expect(code, stderr).to.equal(0);
      };
      await define(guestXml({ name: 'mono-guest' }), 'define');
      await define(networkXml('mono-net', 'mononet0'), 'net-define');
      for (const [list, name] of [
        ['list', 'mono-guest'],
        ['net-list', 'mono-net'],
      ] as const) {
        expect((await virsh(mono.uri(), [list, '--all', '--name'])).stdout).to.contain(name);
        expect((await qemu.virsh(list, '--all', '--name')).stdout).to.contain(name);
      }
      const secondary = await virsh(mono.uri('network'), ['net-list', '--all', '--name']);
      expect(secondary.stdout).to.contain('mono-net');
      expect((await virsh(mono.uri(), ['undefine', 'mono-guest'])).code).to.equal(0);
      expect((await virsh(mono.uri(), ['net-undefine', 'mono-net'])).code).to.equal(0);
    });

    it('an empty URI finds its hypervisor', async () => {
      const { code, stdout, stderr } = await virsh(`remote+unix:///?socket=${mono.socket}`, [
        'uri',
      ]);
      expect(code, `${stdout}${stderr}`).to.equal(0);
    });

    it('test:///default has its guest, its network and its pool', async () => {
      const uri = mono.uri('test', '/default');
      expect((await virsh(uri, ['list', '--name'])).stdout.trim()).to.equal('test');
      expect((await virsh(uri, ['net-list', '--name'])).stdout.trim()).to.equal('default');
      expect((await virsh(uri, ['pool-list', '--name'])).stdout.trim()).to.equal('default-pool');
    });
  });
});
