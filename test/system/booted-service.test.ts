import { expect } from 'chai';
import { until } from '../peers/waiting.js';
import { BootedHost, whyNoBoot } from './booted-host.js';

const obstacle = whyNoBoot();
const sockets = 'virtproxyd.socket virtproxyd-ro.socket virtproxyd-admin.socket';
const networkSockets = 'virtproxyd-tcp.socket virtproxyd-tls.socket';
const asNobody = 'setpriv --reuid nobody --regid nogroup --clear-groups';

/** A CA and a server's certificate at the default places: the TLS socket needs them. */
const makeCertificates = `
set -e
mkdir -p /etc/pki/CA /etc/pki/libvirt/private
cd /etc/pki
certtool --generate-privkey --outfile ca.key
printf 'cn = "CA"\nca\ncert_signing_key\n' >ca.cfg
certtool --generate-self-signed --load-privkey ca.key --template ca.cfg --outfile CA/cacert.pem
certtool --generate-privkey --outfile libvirt/private/serverkey.pem
printf 'cn = "localhost"\ntls_www_server\nsigning_key\nencryption_key\n' >server.cfg
certtool --generate-certificate --load-privkey libvirt/private/serverkey.pem --load-ca-privkey ca.key \
  --load-ca-certificate CA/cacert.pem --template server.cfg --outfile libvirt/servercert.pem
`;

/**
 * What libsasl2 itself says, as it does to libvirtd, on a host with the Kerberos mechanism and no
 * key table.
 */
const noKeyTable = /^.*(krb5\.tab|gssapiv2).*$/gm;

describe(`the service under systemd itself${obstacle === null ? '' : ` (${obstacle})`}`, function () {
  this.timeout(120_000);
  let host: BootedHost;

  before(async function () {
    if (obstacle !== null) this.skip();
    host = await BootedHost.boot();
    await host.output(makeCertificates);
    await host.output('systemctl start libvirtd.service');
  });
  after(async () => {
    // Undefined when it did not come up.
    await (host as BootedHost | undefined)?.stop();
  });

  const virsh = (command: string): Promise<string> =>
    host.output(`virsh --quiet -c qemu:///system ${command}`);
  const show = (property: string): Promise<string> =>
    host.output(`systemctl show --value --property ${property} virtproxyd.service`);
  const expectServed = async (): Promise<void> => {
    expect(await virsh('uri')).to.equal('qemu:///system');
  };
  const comesTo = (state: string): Promise<unknown> =>
    until(async () => (await show('ActiveState')) === state, {
      what: `the service to be ${state}`,
    });
  /** What systemd and the daemon have logged about the service since the test began. */
  const journal = (): Promise<string> =>
    host.output(`journalctl --quiet --no-pager --unit virtproxyd.service`);

  describe('started by its sockets', () => {
    before(async () => {
      await host.output(`systemctl start ${sockets} ${networkSockets}`);
    });
    after(async () => {
      await host.output(`systemctl stop ${sockets} virtproxyd.service`);
    });

    it('starts with the first client, and says when it serves', async () => {
      expect(await show('ActiveState')).to.equal('inactive');
      await expectServed();
      expect(await show('ActiveState')).to.equal('active');
      expect(await show('StatusText')).not.to.equal('');
      const said = (await journal()).replace(noKeyTable, '');
      expect(said).not.to.match(/error|permission|denied|socket was passed/i);
    });

    it('serves on all five, whatever the configuration says about listening', async () => {
      const main = await show('MainPID');
      const listening = await host.output(`ls -l /proc/${main}/fd`);
      for (const pattern of [
        '/run/libvirt/libvirt-sock',
        '/run/libvirt/libvirt-sock-ro',
        '/run/libvirt/libvirt-admin-sock',
      ]) {
        const inode = await host.output(
          `grep ' ${pattern}$' /proc/net/unix | head -n 1 | tr -s ' ' | cut -d ' ' -f 7`,
        );
        expect(listening, pattern).to.include(`socket:[${inode}]`);
      }
      expect(await host.output('readlink /run/libvirt/virtproxyd-admin-sock')).to.equal(
        '/run/libvirt/libvirt-admin-sock',
      );
      await host.output('virt-admin -c virtproxyd:///system server-list');
      await host.output(`virsh --quiet --readonly -c qemu:///system uri`);
    });

    it('asks polkit about people, with all its protection on', async () => {
      expect(await host.output(`${asNobody} virsh --readonly -c qemu:///system uri`)).to.equal(
        'qemu:///system',
      );
      const { code, stderr } = await host.shell(`${asNobody} virsh -c qemu:///system uri`);
      expect(code).to.equal(1);
      expect(stderr).to.include('authentication failed');
    });

    it('keeps root’s powers and systemd’s words to itself', async () => {
      const main = await show('MainPID');
      const pids = (await host.output(`cat /proc/${main}/task/${main}/children`)).split(' ');
      for (const pid of [main, ...pids]) {
        const status = await host.output(`cat /proc/${pid}/status`);
        // CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_NET_BIND_SERVICE
        expect(status)
          .to.match(/^CapBnd:\t0{13}4e1$/m)
          .and.match(/^NoNewPrivs:\t1$/m);
        expect(status).to.match(/^Seccomp:\t2$/m);
        if (pid === main) continue;
        const env = await host.output(`tr '\\0' '\\n' </proc/${pid}/environ`);
        expect(env).not.to.match(/^(LISTEN_|NOTIFY_SOCKET|WATCHDOG_)/m);
      }
    });

    it('reloads, and keeps serving when the new configuration has a mistake', async () => {
      const main = await show('MainPID');
      await host.output('systemctl reload virtproxyd.service');
      await until(async () => (await show('SubState')) === 'running', { what: 'the reload' });
      await expectServed();
      await host.output(`echo 'max_clients = "x"' >>/etc/libvirt/virtproxyd.conf`);
      await host.output('systemctl reload virtproxyd.service');
      await until(async () => (await journal()).includes('max_clients'), {
        what: 'the log line about the mistake',
      });
      await until(async () => (await show('SubState')) === 'running', { what: 'the reload' });
      await host.output(`sed -i '$d' /etc/libvirt/virtproxyd.conf`);
      await expectServed();
      expect(await show('MainPID')).to.equal(main);
    });

    it('follows an upgrade to the new process', async () => {
      const main = await show('MainPID');
      await host.output('systemctl kill --signal USR2 --kill-whom main virtproxyd.service');
      await until(async () => (await show('MainPID')) !== main, { what: 'the successor' });
      await until(async () => (await host.shell(`test -e /proc/${main}`)).code !== 0, {
        what: 'the end of the old process',
      });
      expect(await show('ActiveState')).to.equal('active');
      await expectServed();
      await host.output('systemctl reload virtproxyd.service');
      await expectServed();
    });

    it('is started again when it is killed', async () => {
      const main = await show('MainPID');
      await host.output('systemctl kill --signal KILL --kill-whom main virtproxyd.service');
      await until(async () => !['0', main].includes(await show('MainPID')), {
        what: 'the restart',
      });
      await expectServed();
      expect(await show('NRestarts')).to.equal('1');
    });

    it('stops with nothing left but the sockets, which start it again', async () => {
      await host.output('systemctl stop virtproxyd.service');
      expect([await show('Result'), await show('ActiveState')]).to.deep.equal([
        'success',
        'inactive',
      ]);
      const left = '/sys/fs/cgroup/system.slice/virtproxyd.service /run/virtproxyd.pid';
      expect(await host.output(`ls -d ${left} 2>/dev/null || true`)).to.equal('');
      await expectServed();
      await host.output('systemctl stop virtproxyd.service');
    });

    it('ends when nobody needs it, without losing who comes then', async () => {
      await host.output(
        'mkdir -p /run/systemd/system/virtproxyd.service.d && ' +
          `printf '[Service]\\nEnvironment=VIRTPROXYD_ARGS="--timeout 1"\\n' >/run/systemd/system/virtproxyd.service.d/idle.conf && ` +
          'systemctl daemon-reload',
      );
      for (let round = 0; round < 3; round++) {
        await expectServed();
        await comesTo('inactive');
        expect(await show('Result')).to.equal('success');
      }
      await host.output('rm -r /run/systemd/system/virtproxyd.service.d; systemctl daemon-reload');
    });

    it('leaves nothing in /run/libvirt when its sockets are stopped', async () => {
      await host.output('systemctl stop virtproxyd.socket');
      expect(await host.output('ls /run/libvirt')).not.to.include('libvirt-');
      for (const unit of [...sockets.split(' '), ...networkSockets.split(' ')]) {
        expect((await host.shell(`systemctl is-active ${unit}`)).stdout.trim()).to.equal(
          'inactive',
        );
      }
    });
  });

  describe('without sockets from systemd', () => {
    before(async () => {
      await host.output(`systemctl mask --now ${sockets}`);
    });

    it('opens its own, with group, port and hook of the administrator', async () => {
      await host.output(
        `printf 'unix_sock_group = "daemon"\\nunix_sock_rw_perms = "0770"\\n` +
          `listen_tcp = 1\\ntcp_port = "443"\\nauth_tcp = "none"\\n` +
          `auth_unix_rw = "sasl"\\n' >>/etc/libvirt/virtproxyd.conf`,
      );
      await host.output(
        `mkdir -p /etc/libvirt/hooks && printf '#!/bin/sh\\necho "$*" >>/run/hook\\n' >/etc/libvirt/hooks/daemon && ` +
          'chmod +x /etc/libvirt/hooks/daemon',
      );
      await host.output(
        `printf 'mech_list: scram-sha-256\\nsasldb_path: /etc/libvirt/passwd.db\\n' >/etc/sasl2/libvirt.conf && ` +
          'echo secret | saslpasswd2 -p -a libvirt -c -f /etc/libvirt/passwd.db fred && ' +
          `printf '[credentials-fred]\\nauthname=fred\\npassword=secret\\n` +
          `[auth-libvirt-localhost]\\ncredentials=fred\\n' >/tmp/auth.conf`,
      );
      await host.output('systemctl start virtproxyd.service');
      expect(await host.output('stat --format "%G %a" /run/libvirt/libvirt-sock')).to.equal(
        'daemon 770',
      );
      expect(await host.output('virsh --quiet -c qemu+tcp://127.0.0.1:443/system uri')).to.include(
        'qemu+tcp',
      );
      expect(
        await host.output(`virsh --quiet -c 'qemu:///system?authfile=/tmp/auth.conf' uri`),
      ).to.include('qemu');
      await host.output('systemctl reload virtproxyd.service');
      await until(async () => (await host.output('cat /run/hook')).includes('reload'), {
        what: 'the hook for the reload',
      });
      await host.output('systemctl stop virtproxyd.service');
      expect(await host.output('cat /run/hook')).to.equal(
        '- start - start\n- reload begin SIGHUP\n- shutdown - shutdown',
      );
      expect(await host.output('ls /run/libvirt')).not.to.include('libvirt-');
    });
  });
});
