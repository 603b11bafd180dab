import { basename } from 'node:path';
import { rm } from 'node:fs/promises';
import { expect } from 'chai';
import { freshDirectory, until } from '../peers/waiting.js';
import { BootedHost, clusterIni, whyNoBoot } from './booted-host.js';
import { buildPackages, lacking, nextVersion, version } from './built-packages.js';

const obstacle = whyNoBoot() ?? lacking('dpkg', 'dpkg-deb');
const sockets = ['virtproxyd.socket', 'virtproxyd-ro.socket', 'virtproxyd-admin.socket'];

/**
 * Calls ten times a second on one connection, and prints that, events of networks, and whatever
 * goes wrong.
 */
const caller = `
import libvirt, threading, time
libvirt.virEventRegisterDefaultImpl()
def run():
    while True: libvirt.virEventRunDefaultImpl()
threading.Thread(target=run, daemon=True).start()
c = libvirt.open('qemu:///system')
c.registerCloseCallback(lambda *_: print('closed', flush=True), None)
c.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE,
    lambda c, n, event, detail, _: print('event', n.name(), flush=True), None)
while True:
    print('call', c.getHostname() and 'ok', flush=True)
    time.sleep(0.1)
`;

const network = (name: string): string => `<network><name>${name}</name></network>`;

/** A package for a host whose Node.js did not come as one. */
const nodePackage = `
mkdir -p /root/node/DEBIAN
printf 'Package: nodejs\\nVersion: 20.19.0\\nArchitecture: all\\nMaintainer: test <test@example.org>\\nDescription: Node.js\\n' >/root/node/DEBIAN/control
dpkg-deb --build /root/node /root/node.deb
dpkg --install /root/node.deb
`;

describe(`the .deb on a booted host${obstacle === null ? '' : ` (${obstacle})`}`, function () {
  this.timeout(180_000);
  let directory: string;
  let host: BootedHost;
  let first: string;
  let second: string;
  let beforehand: string;

  before(async function () {
    if (obstacle !== null) this.skip();
    directory = await freshDirectory();
    const [[deb = ''], [newer = '']] = await Promise.all([
      buildPackages(directory, ['deb']),
      buildPackages(directory, ['deb'], { as: nextVersion }),
    ]);
    first = `/root/${basename(deb)}`;
    second = `/root/${basename(newer)}`;
    host = await BootedHost.boot({
      prepare:
        `cp ${deb} ${newer} "$root/root"\nrm -f "$root"/var/log/libvirt/virtproxyd*\n` +
        // Whatever Node.js the tests run with is the distribution's there.
        `[ "$3" -ef /usr/bin/node ] || ln -sf "$3" "$root/usr/bin/node"\n` +
        `printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"`,
    });
    const { code } = await host.shell(
      `dpkg --compare-versions "$(dpkg-query --show --showformat '\${Version}' nodejs)" ge 20.19`,
    );
    if (code !== 0) await host.output(nodePackage);
    await host.output('systemctl start libvirtd.service');
    beforehand = await traces();
  });
  after(async () => {
    await (host as BootedHost | undefined)?.stop();
    if (obstacle === null) await rm(directory, { recursive: true });
  });

  const dpkg = (action: string): Promise<string> =>
    host.output(`DEBIAN_FRONTEND=noninteractive dpkg ${action} 2>&1`, { timeoutMs: 90_000 });
  const show = (property: string, unit = 'virtproxyd.service'): Promise<string> =>
    host.output(`systemctl show --value --property ${property} ${unit}`);
  const states = async (query: string): Promise<string[]> =>
    (await host.shell(`systemctl ${query} ${sockets.join(' ')}`)).stdout.trim().split('\n');
  const traces = (): Promise<string> =>
    host.output(
      `find /etc /usr /var /run ! -path '/run/systemd/*' -a \\( -name '*virtproxyd*' -o -name 'libvirt-*sock*' -o -path '/etc/libvirt/*' \\) | sort`,
    );
  const expectServed = async (): Promise<void> => {
    expect(await host.output('virsh --quiet -c qemu:///system uri')).to.equal('qemu:///system');
  };
  const releases = async (): Promise<string[]> =>
    (await host.output('ls /usr/lib/virtproxyd/releases')).split('\n');
  const calls = async (): Promise<string[]> =>
    (await host.output('cat /root/calls')).trim().split('\n');

  /** Installs a package over the running daemon, and waits for its process. */
  async function installOver(deb: string): Promise<void> {
    const main = await show('MainPID');
    await dpkg(`--install ${deb}`);
    await until(async () => (await show('MainPID')) !== main, {
      what: 'the successor',
      deadlineMs: 30_000,
    });
    expect(await show('ActiveState')).to.equal('active');
    await expectServed();
  }

  /** The caller goes on, and hears of networks. */
  async function callerGoesOn(name: string): Promise<void> {
    const count = (await calls()).length;
    await host.output(
      `echo '${network(name)}' >/root/net.xml && virsh --quiet -c qemu:///system net-define /root/net.xml`,
    );
    await until(async () => (await calls()).slice(count).includes(`event ${name}`), {
      what: `the event of ${name}`,
    });
    await until(
      async () => (await calls()).slice(count).filter((line) => line === 'call ok').length > 3,
      {
        what: 'further calls',
      },
    );
    const odd = (await calls()).filter((line) => !/^(call ok|event net\d)$/.test(line));
    expect(odd).to.deep.equal([]);
  }

  it('starts nothing where policy forbids it, and nothing is left of it', async () => {
    await dpkg(`--install ${first}`);
    expect(await states('is-active')).to.deep.equal(['inactive', 'inactive', 'inactive']);
    expect(await states('is-enabled')).to.deep.equal(['enabled', 'enabled', 'enabled']);
    await dpkg('--purge virtproxyd');
    expect(await traces()).to.equal(beforehand);
    await host.output('rm /usr/sbin/policy-rc.d');
  });

  it('leaves the sockets to whoever has them', async () => {
    await host.output(
      `mkdir -p /run/libvirt && systemd-run --unit holder python3 -c 'import socket,time; s=socket.socket(socket.AF_UNIX); s.bind("/run/libvirt/libvirt-sock"); s.listen(); time.sleep(999)'`,
    );
    await until(async () => (await host.shell('test -S /run/libvirt/libvirt-sock')).code === 0, {
      what: 'the holder to listen',
    });
    expect(await dpkg(`--install ${first}`)).to.include('virtproxyd-moving(7)');
    expect(await states('is-active')).to.deep.equal(['inactive', 'inactive', 'inactive']);
    expect(await states('is-enabled')).to.deep.equal(['disabled', 'disabled', 'disabled']);
    await host.output('systemctl stop holder; rm /run/libvirt/libvirt-sock');
    await dpkg('--purge virtproxyd');
    expect(await traces()).to.equal(beforehand);
  });

  it('serves through the activated socket as soon as it is installed', async () => {
    await dpkg(`--install ${first}`);
    expect(await states('is-active')).to.deep.equal(['active', 'active', 'active']);
    expect(await show('ActiveState')).to.equal('inactive');
    await host.output(
      `printf '${clusterIni.replaceAll('\n', '\\n')}' >>/etc/libvirt/virtproxyd-cluster.ini`,
    );
    await expectServed();
    expect(await show('ActiveState')).to.equal('active');
    expect(await host.output('virtproxyd --version')).to.equal(`virtproxyd (libvirt) ${version}`);
    expect(await host.output('man --path virtproxyd')).to.include(
      '/usr/share/man/man8/virtproxyd.8',
    );
  });

  it('loses no client over an upgrade, nor over a downgrade', async () => {
    await host.output(`cat >/root/caller.py <<'END'\n${caller}\nEND`);
    await host.output(
      'systemd-run --unit caller --property StandardOutput=file:/root/calls --property StandardError=file:/root/calls /usr/bin/python3 /root/caller.py',
    );
    await until(async () => (await calls()).length > 3, { what: 'the caller to call' });
    await callerGoesOn('net1');
    const old = await show('MainPID');

    await installOver(second);
    expect(await host.output('virtproxyd --version')).to.equal(
      `virtproxyd (libvirt) ${nextVersion}`,
    );
    await callerGoesOn('net2');
    // Each runs from files of its own, which are there.
    expect((await releases()).map((name) => name.split('-')[0])).to.have.members([
      version,
      nextVersion,
    ]);
    const mapped = (pid: string): Promise<string> =>
      host.output(
        `sed -n 's#.* /usr/lib/virtproxyd/releases/\\([^/]*\\)/.*#\\1#p' /proc/${pid}/maps | sort -u`,
      );
    expect(await releases()).to.include(await mapped(old));
    expect((await mapped(await show('MainPID'))).split('-')[0]).to.equal(nextVersion);

    await installOver(first);
    await callerGoesOn('net3');
    expect(await host.output('virtproxyd --version')).to.equal(`virtproxyd (libvirt) ${version}`);
    // The conffile was changed, and stays.
    expect(await host.output('cat /etc/libvirt/virtproxyd-cluster.ini')).to.include('workers = 1');

    await host.output('systemctl stop caller');
    await until(async () => (await host.shell(`test -e /proc/${old}`)).code !== 0, {
      what: 'the first process to end',
    });
    await installOver(second);
    expect((await releases()).length).to.be.at.most(2);
  });

  it('ends with its removal, and purging leaves nothing', async () => {
    await dpkg('--remove virtproxyd');
    expect((await host.shell('systemctl is-active virtproxyd.service')).code).not.to.equal(0);
    expect((await host.shell('pgrep -f "[/]usr/(sbin|lib)/virtproxyd"')).stdout).to.equal('');
    expect(
      await host.output('ls -d /usr/lib/virtproxyd /run/libvirt/libvirt-sock 2>/dev/null || true'),
    ).to.equal('');
    expect(await host.output('cat /etc/libvirt/virtproxyd-cluster.ini')).to.include('workers = 1');
    // Installed again it is as before.
    await dpkg(`--install ${first}`);
    await expectServed();
    await host.output('systemctl enable virtproxyd-tcp.socket');
    await dpkg('--purge virtproxyd');
    await host.output(
      'for net in net1 net2 net3; do rm -f /etc/libvirt/qemu/networks/$net.xml; done',
    );
    expect(await traces()).to.equal(beforehand);
  });
});
