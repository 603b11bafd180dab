import { spawnSync } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { ClientProcess, socketUri, virsh } from '../peers/clients.js';
import { poolXml } from '../peers/guest.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory } from '../peers/waiting.js';

const hasProgram = spawnSync('virt-install', ['--version']).status === 0;
const reason = whyNoHost() ?? (hasProgram ? null : 'needs virt-install (Debian: virtinst)');

describe(`virt-install through the proxy${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(60_000);
  const guest = 'installed-guest';
  const pool = 'installed-pool';
  let directory: string;
  let host: ModularHost;
  let proxy: Proxy;

  before(async function () {
    if (reason !== null) this.skip();
    directory = await freshDirectory();
    host = await sharedHost();
    proxy = await Proxy.start({ cluster: host.routesIni() });
  });
  after(async () => {
    if (reason !== null) return;
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function succeeds(uri: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await virsh(uri, args);
    expect(code, stderr).to.equal(0);
    return stdout;
  }

  it('makes a guest and its disk, each in the daemon it belongs to', async () => {
    const target = join(directory, 'pool');
    await mkdir(target);
    const { code } = await virsh(proxy.uri(), ['pool-create', '/dev/stdin'], {
      input: poolXml(pool, target),
    });
    expect(code).to.equal(0);
    const install = new ClientProcess('virt-install', [
      ...['--connect', proxy.uri(), '--name', guest, '--virt-type', 'qemu', '--memory', '32'],
      ...['--disk', `pool=${pool},size=0.01,format=raw,sparse=yes`, '--import'],
      ...['--osinfo', 'detect=off,require=off', '--network', 'none', '--graphics', 'none'],
      ...['--noautoconsole', '--wait', '0'],
    ]);
    const { code: status, stderr } = await install.finished;
    expect(status, stderr).to.equal(0);
    try {
      expect(await succeeds(proxy.uri(), 'domstate', guest)).to.include('running');
      const [qemu, storage] = [host.daemon('qemu').socket, host.daemon('storage').socket];
      expect(await succeeds(socketUri('qemu', qemu), 'list', '--name')).to.include(guest);
      expect(await succeeds(socketUri('qemu', storage), 'list', '--all')).not.to.include(guest);
      expect(await succeeds(socketUri('storage', storage), 'vol-list', pool)).to.include(guest);
      expect(await succeeds(socketUri('storage', qemu), 'pool-list', '--all')).not.to.include(pool);
    } finally {
      await succeeds(proxy.uri(), 'destroy', guest);
      await succeeds(proxy.uri(), 'undefine', guest);
      await succeeds(proxy.uri(), 'pool-destroy', pool);
    }
  });
});
