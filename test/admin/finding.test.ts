import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { account, run, virtAdmin, type Finished } from '../peers/clients.js';
import { missingPrograms } from '../peers/modular-host.js';
import { Proxy, sessionEnvironment } from '../peers/proxy.js';
import { freshDirectory } from '../peers/waiting.js';

const isRoot = process.getuid?.() === 0;
const missing = missingPrograms();
const obstacle =
  (isRoot ? undefined : 'needs root') ??
  (missing.length > 0 ? `needs ${missing.join(', ')}` : undefined);

const servers = / *0 +virtproxyd\n *1 +admin\n/;

describe(`virt-admin finds the daemon${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(30_000);
  let directory: string;
  let proxy: Proxy | null = null;

  beforeEach(async function () {
    if (obstacle !== undefined) this.skip();
    directory = await freshDirectory();
  });
  afterEach(async () => {
    if (obstacle !== undefined) return;
    await proxy?.stop();
    proxy = null;
    await rm(directory, { recursive: true, force: true });
  });

  /** Runs virt-admin where `place` is /run/libvirt, in a mount namespace of its own. */
  function atItsPlace(place: string, uri: string): Promise<Finished> {
    const script =
      'mount -n -t tmpfs tmpfs /run && mkdir /run/libvirt && mount -n --bind "$1" /run/libvirt && ' +
      'exec virt-admin --quiet --connect "$2" server-list';
    return run('unshare', ['-m', '--', 'sh', '-c', script, 'sh', place, uri]);
  }

  for (const name of ['libvirtd', 'virtproxyd']) {
    it(`as root by ${name}:///system`, async () => {
      proxy = await Proxy.start({ directory });
      const { code, stdout, stderr } = await atItsPlace(directory, `${name}:///system`);
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
      expect(stdout).to.match(servers);
    });

    it(`as an ordinary user by ${name}:///session`, async () => {
      const user = account('nobody');
      proxy = await Proxy.start({ directory, user });
      const { code, stdout, stderr } = await run(
        'virt-admin',
        ['--quiet', '--connect', `${name}:///session`, 'server-list'],
        { user, env: sessionEnvironment(directory) },
      );
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
      expect(stdout).to.match(servers);
    });
  }

  it('but is refused as another user than the daemon’s, whatever the permissions', async () => {
    proxy = await Proxy.start({ directory, conf: { unix_sock_admin_perms: '0777' } });
    const socket = join(directory, 'libvirt-admin-sock');
    const user = account('nobody');
    const { code, stderr } = await virtAdmin(socket, ['server-list'], { user });
    expect(code).to.equal(1);
    expect(stderr).to.contain('operation forbidden').and.to.contain('uid 0');
    expect(proxy.log()).to.match(new RegExp(`refused process \\d+ of uid ${user.uid} `));
    expect((await virtAdmin(socket, ['server-list'])).code).to.equal(0);
  });

  it('but is refused as root by an ordinary user’s daemon', async () => {
    proxy = await Proxy.start({ directory, user: account('nobody') });
    const socket = join(directory, 'run/libvirt/libvirt-admin-sock');
    expect((await virtAdmin(socket, ['server-list'])).code).to.equal(1);
    expect(proxy.log()).to.match(/refused process \d+ of uid 0 /);
  });

  it('by neither name once the daemon is gone', async () => {
    proxy = await Proxy.start({ directory });
    const names = ['libvirt', 'virtproxyd'].map((name) => join(directory, `${name}-admin-sock`));
    expect(names.every((name) => existsSync(name))).to.be.true;
    proxy.signal('SIGTERM');
    await proxy.exited;
    expect(names.some((name) => existsSync(name))).to.be.false;
  });
});
