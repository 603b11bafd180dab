import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { certificatesLacking } from '../peers/certificates.js';
import { startPython, virsh, type ClientProcess } from '../peers/clients.js';
import { openConnection } from '../peers/connected-client.js';
import { guestXml, networkXml, poolXml } from '../peers/guest.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { sharedHost } from '../peers/shared-host.js';
import { TlsPki } from '../peers/tls-pki.js';
import { freshDirectory, until } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? certificatesLacking() ?? saslAccountsLacking();

/**
 * Asks three drivers all the time, and says when something goes wrong, and at the end of its input
 * how often it has asked.
 */
const reader = `
import threading
${openConnection}
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
asked = 0
print("ready")
while not ended.is_set():
    try:
        connection.listAllDomains()
        connection.listAllNetworks()
        connection.listAllStoragePools()
        asked += 1
    except libvirt.libvirtError as error:
        print("error", error)
        break
print("asked", asked)
`;

/** Prints events of three drivers, and at the end of its input how deregistering went. */
const listener = `
import threading
${openConnection.replace('connection =', 'libvirt.virEventRegisterDefaultImpl()\nconnection =')}
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
libvirt.registerErrorHandler(lambda *_: None, None)
def told(connection, thing, event, detail, opaque):
    print(opaque, thing.name(), event, flush=True)
guests = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told, "guest")
networks = connection.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, told, "network")
pools = connection.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, told, "pool")
connection.registerCloseCallback(lambda connection, why, opaque: print("told of the end", flush=True), None)
print("ready", flush=True)
sys.stdin.read()
connection.domainEventDeregisterAny(guests)
connection.networkEventDeregisterAny(networks)
connection.storagePoolEventDeregisterAny(pools)
print("deregistered", flush=True)
`;

describe(`clients of real daemons that are restarted${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(120_000);
  let host: ModularHost;
  let directory: string;
  let proxy: Proxy;
  let readers: ClientProcess[] = [];
  let listeners: ClientProcess[] = [];

  before(async function () {
    if (obstacle !== undefined) this.skip();
    host = await sharedHost();
    directory = await freshDirectory();
    await mkdir(join(directory, 'pool'));
    const pki = await TlsPki.create(directory);
    const [tcp] = (await freePorts(1)) as [number];
    const accounts = await SaslAccounts.create({
      directory,
      mechanisms: 'DIGEST-MD5',
      users: { fred: 'secret' },
    });
    proxy = await Proxy.start({
      conf: { ...pki.conf, listen_tcp: 1, tcp_port: String(tcp) },
      cluster: `${host.routesIni()}[cluster]\nworkers = 1\n`,
      env: accounts.serverEnv,
    });
    const env = await accounts.clientEnv('fred');
    const uris = [proxy.uri(), pki.uri(), `qemu+tcp://localhost:${tcp}/system`];
    readers = uris.map((uri) => startPython(reader, [uri], { env }));
    listeners = uris.map((uri) => startPython(listener, [uri], { env }));
    const all = [...readers, ...listeners];
    await until(() => all.every(({ stdout }) => stdout.includes('ready')), {
      what: `the clients: ${all.map(({ stderr }) => stderr).join('')}`,
      deadlineMs: 20_000,
    });
  });
  after(async () => {
    if (obstacle !== undefined) return;
    await Promise.all([...readers, ...listeners].map((client) => client.kill()));
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function ask(uri: string, command: readonly string[], input: string): Promise<void> {
    const { code, stderr } = await virsh(uri, command, { input });
    expect(code, stderr).to.equal(0);
  }

  const returns = (daemon: string): number =>
    proxy.log().match(new RegExp(`${daemon} at '.*' went away .* back after`, 'g'))?.length ?? 0;

  for (const [driver, daemon, thing, define, undefine, xml] of [
    ['qemu', 'virtqemud', 'guest', 'define', 'undefine', (name: string) => guestXml({ name })],
    [
      'network',
      'virtnetworkd',
      'network',
      'net-define',
      'net-undefine',
      (name: string) => networkXml(name, 'restartbr0'),
    ],
    [
      'storage',
      'virtstoraged',
      'pool',
      'pool-define',
      'pool-undefine',
      (name: string) => poolXml(name, join(directory, 'pool')),
    ],
  ] as const) {
    for (const [signal, seconds] of [
      ['SIGTERM', 0],
      ['SIGKILL', 1.5],
    ] as const) {
      const name = `${driver}-${signal.toLowerCase()}`;

      it(`notice nothing of ${daemon}'s end by ${signal} and its return ${seconds} s later, and get events`, async () => {
        const before = returns(daemon);
        await host.daemon(driver).kill(signal);
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
        await host.daemon(driver).launch();
        await until(() => returns(daemon) === before + 1, {
          what: `the return in the log: ${proxy.log().slice(-500)}`,
          deadlineMs: 20_000,
        });
        const { uri } = host.daemon(driver);
        await ask(uri, [define, '/dev/stdin'], xml(name));
        await ask(uri, [undefine, name], '');
        const lines = [`${thing} ${name} 0\n`, `${thing} ${name} 1\n`];
        const areTold = ({ stdout }: ClientProcess): boolean =>
          lines.every((line) => stdout.includes(line));
        await until(() => listeners.every(areTold), { what: 'the events' });
      });
    }
  }

  it('have asked without an error, had each event once, and can deregister', async () => {
    for (const client of [...readers, ...listeners]) client.end();
    for (const { finished } of readers) {
      const { stdout, stderr } = await finished;
      expect(stdout, stderr).to.match(/^ready\nasked \d{2,}\n$/);
    }
    for (const { finished } of listeners) {
      const { stdout, stderr } = await finished;
      expect(stderr).to.equal('');
      const events = stdout.match(/^(guest|network|pool) \S+ [01]$/gm) ?? [];
      expect(events).to.have.length(12);
      expect(new Set(events).size).to.equal(12);
      expect(stdout)
        .to.contain('told of the end\n')
        .and.to.match(/deregistered\n$/);
    }
  });
});
