import { expect } from 'chai';
import { account, startPython, type Account, type ClientProcess } from '../peers/clients.js';
import type { ClientInfo, Driver } from '../peers/daemon.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { until } from '../peers/waiting.js';

const reason = whyNoHost();

const script = `
import libvirt, sys
connection = libvirt.open(sys.argv[1])
connection.listAllSecrets()
print("ready")
sys.stdin.read()
`;

describe(`the client's identity in the daemons${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(30_000);
  let host: ModularHost;
  let proxy: Proxy;
  let clients: ClientProcess[] = [];

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    host = await sharedHost();
    proxy = await Proxy.start({
      conf: { unix_sock_rw_perms: '0777' },
      cluster: host.routesIni(),
    });
  });

  afterEach(async () => {
    await Promise.all(clients.map((client) => client.kill()));
    clients = [];
  });

  after(() => (reason === null ? proxy.stop() : null));

  async function connected(user: Account): Promise<ClientProcess> {
    const client = startPython(script, [proxy.uri()], { user });
    clients.push(client);
    await until(() => client.stdout.includes('ready'), { what: `${user.name}'s client` });
    return client;
  }

  /** What a daemon says of its one client with this process id. */
  async function seenBy(driver: Driver, pid: number): Promise<ClientInfo> {
    const all = await host.daemon(driver).clientInfo();
    const [only, ...others] = all.filter((info) => info.unix_process_id === String(pid));
    expect(others).to.deep.equal([]);
    expect(only, JSON.stringify(all)).to.exist;
    return only!;
  }

  it('is that of each user, with the hypervisor’s daemon and a secondary one', async () => {
    const users = [account('nobody'), account('daemon'), account('root')];
    const processes = await Promise.all(users.map(connected));
    for (const [index, user] of users.entries()) {
      for (const driver of ['qemu', 'secret'] as const) {
        const info = await seenBy(driver, processes[index]!.pid);
        expect(info).to.include({
          unix_user_id: String(user.uid),
          unix_user_name: user.name,
          unix_group_id: String(user.gid),
          readonly: 'no',
        });
      }
    }
  });

  it('is not the proxy’s own anywhere', async () => {
    await connected(account('nobody'));
    const own = [proxy.pid, ...proxy.workers()].map(String);
    for (const driver of ['qemu', 'secret'] as const) {
      const pids = (await host.daemon(driver).clientInfo()).map((info) => info.unix_process_id);
      expect(pids).to.not.include.oneOf(own);
    }
  });

  it('is that of the user who opens a second connection later, each time anew', async () => {
    for (const name of ['daemon', 'nobody', 'daemon']) {
      const client = await connected(account(name));
      expect(await seenBy('qemu', client.pid)).to.include({ unix_user_name: name });
    }
  });

  it('may be changed by root alone, and then is so for every daemon', async () => {
    const actor = `
import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open(sys.argv[1])
try:
    connection.setIdentity({"unix-user-id": 4242, "user-name": "fred", "process-id": int(sys.argv[2])})
except libvirt.libvirtError as error:
    print(error)
connection.listAllSecrets()
print("ready")
sys.stdin.read()
`;
    const pretended = '1234567';
    const start = async (user: Account): Promise<ClientProcess> => {
      const client = startPython(actor, [proxy.uri(), pretended], { user });
      clients.push(client);
      await until(() => client.stdout.includes('ready'), { what: `${user.name}'s client` });
      return client;
    };
    const nobody = await start(account('nobody'));
    expect(nobody.stdout).to.contain('only root may act for another identity');
    const root = await start(account('root'));
    expect(root.stdout).to.equal('ready\n');
    for (const driver of ['qemu', 'secret'] as const) {
      expect(await seenBy(driver, nobody.pid)).to.include({ unix_user_name: 'nobody' });
      const info = await seenBy(driver, Number(pretended));
      expect(info).to.include({ unix_user_id: '4242', unix_user_name: 'fred' });
    }
  });
});
