import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { python, startPython, virsh } from '../peers/clients.js';
import { guestXml, networkXml, poolXml, secretXml } from '../peers/guest.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { until } from '../peers/waiting.js';

const reason = whyNoHost();

/**
 * Runs libvirt's event loop and gives scripts `connection`, opened on their first argument, and
 * `said` to print.
 */
const prelude = `
import libvirt, sys, threading

libvirt.virEventRegisterDefaultImpl()
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
libvirt.registerErrorHandler(lambda *_: None, None)

def said(*words):
    print(*words, flush=True)

connection = libvirt.open(sys.argv[1])
`;

describe(`libvirt's Python binding through the proxy${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(30_000);
  let host: ModularHost;
  let proxy: Proxy;

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    host = await sharedHost();
    const cluster = `${host.routesIni()}[cluster]\ndaemon_restart_timeout = 0\n`;
    proxy = await Proxy.start({ cluster });
  });

  after(() => (reason === null ? proxy.stop() : null));

  it('receives domain, network, pool and secret events on one connection', async () => {
    const script = `${prelude}
def domain(connection, domain, event, detail, opaque):
    said("domain", domain.name(), event)
def network(connection, network, event, detail, opaque):
    said("network", network.name(), event)
def pool(connection, pool, event, detail, opaque):
    said("pool", pool.name(), event)
def secret(connection, secret, event, detail, opaque):
    said("secret", secret.usageID(), event)
def device(connection, device, event, detail, opaque):
    said("device", device.name(), event)
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, domain, None)
connection.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, network, None)
connection.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, pool, None)
ids = connection.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE, secret, None)
connection.nodeDeviceEventRegisterAny(None, libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE, device, None)
said("ready")
for line in sys.stdin:
    connection.secretEventDeregisterAny(ids)
    said("deregistered")
`;
    const listener = startPython(script, [proxy.uri()]);
    await until(() => listener.stdout.includes('ready'), { what: 'the listener' });
    const pool = join(proxy.directory, 'pool');
    await mkdir(pool);
    const uuid = '5f1bb1ac-4b35-4b3a-b5a5-5b0c3c3b7a11';
    const otherUuid = '5f1bb1ac-4b35-4b3a-b5a5-5b0c3c3b7a12';
    const define = async (text: string, command: string): Promise<void> => {
      const { code, stderr } = await virsh(proxy.uri(), [command, '/dev/stdin'], { input: text });
      expect(code, stderr).to.equal(0);
    };
    await Promise.all([
      define(guestXml({ name: 'python-guest' }), 'define'),
      define(networkXml('python-net', 'pythonnet0'), 'net-define'),
      define(poolXml('python-pool', pool), 'pool-define'),
      define(secretXml(uuid, '/python/volume'), 'secret-define'),
    ]);
    const expected = [
      'domain python-guest 0',
      'network python-net 0',
      'pool python-pool 0',
      'secret /python/volume 0',
    ];
    await until(() => expected.every((line) => listener.stdout.includes(`${line}\n`)), {
      what: 'one event of each daemon',
    });
    listener.write('go\n');
    await until(() => listener.stdout.includes('deregistered'), { what: 'the deregistration' });
    await define(secretXml(otherUuid, '/python/other'), 'secret-define');
    for (const command of [
      ['undefine', 'python-guest'],
      ['net-undefine', 'python-net'],
      ['pool-undefine', 'python-pool'],
      ['secret-undefine', uuid],
      ['secret-undefine', otherUuid],
    ]) {
      expect((await virsh(proxy.uri(), command)).code).to.equal(0);
    }
    await until(() => listener.stdout.includes('domain python-guest 1\n'), {
      what: 'the last event',
    });
    expect(listener.stdout).to.not.contain('/python/other');
    expect(listener.stdout.match(/^domain python-guest 0$/gm)).to.have.length(1);
    await listener.kill();
  });

  it('is told that its connection is closed when the hypervisor’s daemon is killed', async () => {
    const script = `${prelude}
closed = threading.Event()
def gone(connection, why, opaque):
    said("closed", why)
    closed.set()
connection.registerCloseCallback(gone, None)
connection.listAllNetworks()
said("ready")
closed.wait(10)
try:
    connection.listAllDomains()
except libvirt.libvirtError as error:
    said("then", error)
said(len(connection.listAllNetworks()), "networks")
`;
    const client = startPython(script, [proxy.uri()]);
    const qemu = host.daemon('qemu');
    await until(() => client.stdout.includes('ready'), { what: 'the client' });
    await qemu.kill('SIGKILL');
    try {
      const { stdout, stderr } = await client.finished;
      expect(stdout, stderr).to.match(/^closed \d$/m);
      expect(stdout).to.match(/^then .*client socket is closed/m);
      expect(stdout).to.match(/^\d+ networks$/m);
    } finally {
      await qemu.launch();
    }
  });

  it('opens 50 connections at once, which all work', async () => {
    const script = `${prelude}
connections = []
failures = []
start = threading.Barrier(50)
def client():
    start.wait()
    try:
        own = libvirt.open(sys.argv[1])
        connections.append(own)
        for _ in range(10):
            own.listAllDomains()
            own.listAllNetworks()
            own.listAllStoragePools()
    except libvirt.libvirtError as error:
        failures.append(str(error))
threads = [threading.Thread(target=client) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
alive = [each for each in connections if each.isAlive()]
said(len(alive), failures)
`;
    const { stdout, stderr } = await python(script, [proxy.uri()]);
    expect(stdout, stderr).to.equal('50 []\n');
  });

  for (const socket of ['read-only', 'read-write'] as const) {
    it(`may not define on a read-only connection over the ${socket} socket`, async () => {
      const script = `
import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.openReadOnly(sys.argv[1])
connection.listAllDomains()
connection.listAllNetworks()
for define in connection.defineXML, connection.networkDefineXML, connection.storagePoolDefineXML:
    try:
        define("<x/>")
        print("defined")
    except libvirt.libvirtError as error:
        print(error.get_error_code(), error)
`;
      const uri = socket === 'read-only' ? proxy.readOnlyUri() : proxy.uri();
      const { stdout, stderr } = await python(script, [uri]);
      expect(stdout, stderr).to.equal(
        ['virDomainDefineXML', 'virNetworkDefineXML', 'virStoragePoolDefineXML']
          .map((name) => `29 operation forbidden: read only access prevents ${name}\n`)
          .join(''),
      );
    });
  }
});
