import { expect } from 'chai';
import { account, startPython, virsh, type Account } from '../peers/clients.js';
import { connectedClient } from '../peers/connected-client.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { PolkitHost, SilentAuthority } from '../peers/polkit.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { until } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? PolkitHost.missing();

/** Everybody may look, and one user manage. */
const rules = `
polkit.addRule(function (action, subject) {
  if (action.id == 'org.libvirt.unix.monitor') return polkit.Result.YES;
  return subject.user == 'daemon' ? polkit.Result.YES : polkit.Result.NO;
});
`;

const failed = /^error: authentication failed: authentication failed$/m;

describe(`local clients under polkit${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  let host: ModularHost;
  let polkit: PolkitHost;
  let proxy: Proxy;
  let log: LogWatch;
  const allowed = account('daemon');
  const denied = account('nobody');

  before(async function () {
    if (obstacle !== undefined) this.skip();
    host = await sharedHost();
    polkit = await PolkitHost.start({ rules });
    proxy = await Proxy.start({
      conf: { auth_unix_rw: 'polkit', auth_unix_ro: 'polkit' },
      cluster: `${host.routesIni()}[access]\nread_only_users[] = nobody\nread_only_users[] = bin\n`,
      env: { DBUS_SYSTEM_BUS_ADDRESS: polkit.busAddress },
    });
  });
  beforeEach(() => {
    log = new LogWatch(proxy);
  });
  after(async () => {
    if (obstacle !== undefined) return;
    await proxy.stop();
    await polkit.stop();
  });

  async function expectRefusal(user: Account, why: RegExp): Promise<void> {
    const { stderr, code } = await virsh(proxy.uri(), ['uri'], { user });
    expect(stderr).to.match(failed);
    expect(code).to.equal(1);
    const who = `client \\d+ \\(unix, uid ${user.uid}, pid \\d+\\): login failed: `;
    await log.onlyLine(new RegExp(who + why.source));
  }

  it('are served if the rules allow it, and known to the daemon', async () => {
    const client = await connectedClient(proxy.uri(), { user: allowed });
    const clients = await host.daemon('qemu').clientInfo();
    await client.kill();
    expect(clients.map((info) => info['unix_user_name'])).to.include('daemon');
  });

  it('are refused if the rules deny it', async () => {
    await expectRefusal(
      denied,
      /polkit refused org\.libvirt\.unix\.manage for user \d+ .* add a rule/,
    );
  });

  it('are not let in by [access], which says what else they may do', async () => {
    // The rules let him look, but not by this socket.
    await expectRefusal(account('bin'), /polkit refused org\.libvirt\.unix\.manage for user \d+/);
  });

  it('are asked about another action on the read-only socket', async () => {
    const { stderr, code } = await virsh(proxy.readOnlyUri(), ['-r', 'uri'], { user: denied });
    expect(stderr).to.equal('');
    expect(code).to.equal(0);
  });

  describe('without polkitd', () => {
    before(() => polkit.stopPolkitd());
    after(() => polkit.startPolkitd(rules));

    it('are refused', async () => {
      await expectRefusal(allowed, /.*see that polkit\.service runs/);
    });

    it('are served if they are root', async () => {
      const { stderr, code } = await virsh(proxy.uri(), ['uri']);
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
    });

    it('have their question withdrawn when they leave', async () => {
      const silent = await SilentAuthority.start(polkit.busAddress);
      const client = startPython('import libvirt, sys; libvirt.open(sys.argv[1])', [proxy.uri()], {
        user: allowed,
      });
      await until(() => silent.checked.length > 0, { what: 'the question' });
      await client.kill();
      await until(() => silent.cancelled.length > 0, { what: 'its withdrawal' });
      expect(silent.cancelled).to.deep.equal(silent.checked);
      await silent.stop();
    });
  });

  describe('without a bus', () => {
    before(() => polkit.stopBus());

    it('are refused', async () => {
      await expectRefusal(allowed, /.*start dbus\.service/);
    });
  });
});
