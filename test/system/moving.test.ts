import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { run, searchPath } from '../peers/clients.js';
import { until } from '../peers/waiting.js';
import { BootedHost, whyNoBoot } from './booted-host.js';
import { build, lacking, project } from './built-packages.js';

const obstacle = whyNoBoot() ?? lacking('npm', 'man');
const pageFile = join(project, 'man/virtproxyd-moving.7');
const page = readFileSync(pageFile, 'utf8');

/** The commands of a section or subsection, as a reader sees them. */
function commands(section: string, subsection = ''): string {
  const [, body = ''] = page.split(`.SH ${section}\n`);
  const [whole = ''] = body.split(/^\.SH /m);
  const part = subsection === '' ? whole : (whole.split(`.SS ${subsection}\n`)[1] ?? '');
  const text = /^\.EX\n(.*?)^\.EE$/ms.exec(part)?.[1];
  if (text === undefined) throw new Error(`The page has no commands in ${section} ${subsection}.`);
  return text.replaceAll('\\-', '-').replaceAll('\\(aq', "'");
}

/** The program, installed by hand as the page expects, with nothing configured. */
const install = `DESTDIR=$root BUILD_DIR=$2 WITH=systemd,sysv NODE=$3 bash "$4/conf/install" >"$layer/said"`;

/** libvirtd's init script, as far as the commands use it. */
const libvirtdScript = `cat >"$root/etc/init.d/libvirtd" <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides:          libvirtd
# Required-Start:    $remote_fs
# Required-Stop:     $remote_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
### END INIT INFO
case $1 in
  start) exec /usr/sbin/libvirtd --daemon ;;
  stop) kill "$(cat /run/libvirtd.pid)" && while [ -e /run/libvirtd.pid ]; do sleep 0.1; done ;;
esac
END
chmod +x "$root/etc/init.d/libvirtd"`;

/**
 * Stands in for libvirt's virtproxyd, which Debian does not have: libvirtd under the name of its
 * units, with its configuration file.
 */
const otherProxy = `units=$root/usr/lib/systemd/system
for name in '' -ro -admin; do
  sed "s/libvirtd/virtproxyd/g" "$units/libvirtd$name.socket" >"$units/virtproxyd$name.socket"
  echo "FileDescriptorName=libvirtd$name.socket" | sed -i '/^.Socket.$/r /dev/stdin' "$units/virtproxyd$name.socket"
done
sed -e 's/libvirtd\\(-ro\\|-admin\\)*.socket/virtproxyd\\1.socket/' \
  -e 's#^ExecStart=.*#ExecStart=/usr/sbin/libvirtd --config /etc/libvirt/virtproxyd.conf#' \
  "$units/libvirtd.service" >"$units/virtproxyd.service"
echo 'max_clients = 77' >"$root/etc/libvirt/virtproxyd.conf"`;

describe(`virtproxyd-moving(7)${obstacle === null ? '' : ` (${obstacle})`}`, function () {
  this.timeout(120_000);
  let host: BootedHost;

  before(function () {
    if (obstacle !== null) this.skip();
  });
  afterEach(async () => {
    await (host as BootedHost | undefined)?.stop();
  });

  /** Runs commands of the page one by one, as an administrator would: all must succeed. */
  const follow = (section: string, subsection?: string): Promise<string> =>
    host.output(
      `cd ${project}; export BUILD_DIR=${build}; set -e; ${commands(section, subsection)}`,
      { timeoutMs: 90_000 },
    );
  const served = (): Promise<unknown> =>
    until(
      async () =>
        (await host.shell('virsh --quiet -c qemu:///system uri')).stdout === 'qemu:///system\n',
      { what: 'clients to be served', deadlineMs: 20_000 },
    );
  /** The name of the program that has the socket. */
  const server = async (): Promise<string> => {
    await served();
    const servers = await host.output('virt-admin -c libvirtd:///system server-list');
    return /\b(libvirtd|virtproxyd)\b/.exec(servers)?.[1] ?? servers;
  };
  const maxClients = async (): Promise<string | undefined> =>
    /nclients_max\s*: (\d+)/.exec(
      await host.output('virt-admin -c libvirtd:///system server-clients-info virtproxyd'),
    )?.[1];

  it('has no mistake, and commands that can be copied from it', async () => {
    const { stdout, stderr } = await run('man', ['--warnings', '--local-file', pageFile], {
      env: { PATH: searchPath, MANWIDTH: '200', LC_ALL: 'C.UTF-8' },
    });
    expect(stderr).to.equal('');
    for (const [, block = ''] of page.matchAll(/^\.EX\n(.*?)^\.EE$/gms)) {
      for (const line of block.trim().split('\n')) {
        expect(stdout).to.include(` ${line.replaceAll('\\-', '-').replaceAll('\\(aq', "'")}\n`);
      }
    }
  });

  it('leads from libvirtd and back with systemd', async () => {
    host = await BootedHost.boot({ prepare: install, libvirtd: 'own' });
    const libvirtd = 'libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket';
    await host.output(`systemctl start ${libvirtd}`);
    expect(await server()).to.equal('libvirtd');
    await follow('FROM LIBVIRTD', 'With systemd');
    expect(await server()).to.equal('virtproxyd');
    expect((await host.shell(`systemctl is-active ${libvirtd}`)).stdout).to.equal(
      'inactive\n'.repeat(3),
    );
    await follow('BACK TO LIBVIRTD', 'With systemd');
    expect(await server()).to.equal('libvirtd');
    expect((await host.shell('systemctl is-active virtproxyd.service')).stdout).to.equal(
      'inactive\n',
    );
  });

  it('leads from libvirtd and back with init scripts', async () => {
    host = await BootedHost.boot({
      prepare: `${install}\n${libvirtdScript}`,
      libvirtd: 'own',
      init: 'none',
    });
    await host.output('/etc/init.d/libvirtd start');
    expect(await server()).to.equal('libvirtd');
    await follow('FROM LIBVIRTD', 'With init scripts');
    expect(await server()).to.equal('virtproxyd');
    expect(await host.output('ls /etc/rc2.d')).to.match(/^S\d+virtproxyd$/m);
    await follow('BACK TO LIBVIRTD', 'With init scripts');
    expect(await server()).to.equal('libvirtd');
    expect(await host.output('ls /etc/rc2.d')).to.match(/^K\d+virtproxyd$/m);
  });

  it('leads from libvirt’s virtproxyd and back', async () => {
    host = await BootedHost.boot({ prepare: otherProxy, libvirtd: 'behind' });
    const sockets = 'virtproxyd.socket virtproxyd-ro.socket virtproxyd-admin.socket';
    await host.output(`systemctl start ${sockets}`);
    expect(await server()).to.equal('libvirtd');
    await host.output(
      `printf '[routes]\\ndefault = /run/libvirtd/libvirt-sock\\n' >/etc/libvirt/virtproxyd-cluster.ini`,
    );
    await follow("FROM LIBVIRT'S VIRTPROXYD");
    // What was in the other's own process.
    await host.output('systemctl start libvirtd.service');
    expect(await server()).to.equal('virtproxyd');
    // Its configuration is read as it was.
    expect(await maxClients()).to.equal('77');
    await host.output('systemctl stop libvirtd.service');
    await follow("BACK TO LIBVIRT'S VIRTPROXYD");
    expect(await server()).to.equal('libvirtd');
    expect(await host.output('cat /etc/libvirt/virtproxyd.conf')).to.equal('max_clients = 77');
  });
});
