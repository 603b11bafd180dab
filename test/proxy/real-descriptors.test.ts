import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { pythonProgram, python, run, virsh, type Finished } from '../peers/clients.js';
import { descriptorCount } from '../peers/descriptor-files.js';
import { containerXml, guestXml, poolXml, volumeXml } from '../peers/guest.js';
import { hasLxc, ModularHost, whyNoHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { stalled } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const reason = whyNoHost();

const banner = 'RFB 003.008\n';

/** virsh with `file` open as descriptor 3, for its `--pass-fds 3`. */
function virshWithFile(uri: string, words: readonly string[], file: string): Promise<Finished> {
  const script = 'file=$1; shift; exec virsh --quiet --connect "$@" 3<>"$file"';
  return run('sh', ['-c', script, 'sh', file, uri, ...words]);
}

describe(`libvirt's clients pass file descriptors through the proxy:${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(60_000);
  const guest = 'passing';
  let host: ModularHost;
  let proxy: Proxy;
  let worker: number;
  let idle: number;
  let image: string;

  const said = async (command: Promise<Finished>): Promise<string> => {
    const { code, stdout, stderr } = await command;
    expect(code, stderr).to.equal(0);
    return stdout;
  };

  before(async function () {
    if (reason !== null) this.skip();
    host = await sharedHost();
    proxy = await Proxy.start({
      cluster: `${host.routesIni()}[cluster]\nworkers = 1\n`,
      args: ['--verbose'],
    });
    [worker = 0] = proxy.workers();
    image = join(proxy.directory, 'image');
    await writeFile(image, Buffer.alloc(1024 * 1024));
    const xml = guestXml({ name: guest, vncSocket: join(proxy.directory, 'vnc') });
    await said(virsh(proxy.uri(), ['create', '/dev/stdin'], { input: xml }));
    await said(virsh(proxy.uri(), ['hostname']));
    await until(() => /client 3 .*closed it/.test(proxy.log()), {
      what: 'the first clients to go',
    });
    idle = await stalled(() => descriptorCount(worker));
  });

  afterEach(async () => {
    if (reason !== null) return;
    await until(() => descriptorCount(worker) <= idle, { what: 'the worker to close all it had' });
  });

  after(async () => {
    if (reason !== null) return;
    await virsh(proxy.uri(), ['destroy', guest]);
    await proxy.stop();
  });

  it('openGraphicsFD gives a connection to the guest’s display', async () => {
    const script = `
import libvirt, socket, sys
connection = libvirt.open(sys.argv[1])
guest = connection.lookupByName(sys.argv[2])
for each in range(3):
    fd = guest.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    with socket.socket(fileno=fd) as display:
        print(display.recv(12).decode(), end="")
print(connection.lookupByName(sys.argv[2]).name())
`;
    const output = await said(python(script, [proxy.uri(), guest]));
    expect(output).to.equal(`${banner.repeat(3)}${guest}\n`);
  });

  it('openGraphics hands a socket of the client to the guest’s display', async () => {
    const script = `
import libvirt, socket, sys
connection = libvirt.open(sys.argv[1])
guest = connection.lookupByName(sys.argv[2])
for each in range(3):
    near, far = socket.socketpair()
    guest.openGraphics(0, far.fileno(), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    far.close()
    print(near.recv(12).decode(), end="")
    near.close()
`;
    expect(await said(python(script, [proxy.uri(), guest]))).to.equal(banner.repeat(3));
  });

  it('beside events, other daemons’ calls and a stream on the same connection', async () => {
    const pool = join(proxy.directory, 'pool');
    await mkdir(pool);
    const define = (command: string, ...args: string[]): Promise<Finished> =>
      virsh(proxy.uri(), [command, ...args]);
    await said(
      virsh(proxy.uri(), ['pool-create', '/dev/stdin'], { input: poolXml('passing', pool) }),
    );
    await said(
      virsh(proxy.uri(), ['vol-create', 'passing', '/dev/stdin'], {
        input: volumeXml('volume', 32 * 1024 * 1024),
      }),
    );
    const script = `
import libvirt, socket, sys, threading
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
connection = libvirt.open(sys.argv[1])
connection.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, lambda *_: None, None)
done = threading.Event()
calls, wrong = [0], []
def others():
    while not done.is_set():
        connection.listAllNetworks()
        connection.getHostname()
        calls[0] += 1
def download(sums):
    volume = connection.storagePoolLookupByName("passing").storageVolLookupByName("volume")
    stream = connection.newStream()
    volume.download(stream, 0, 0)
    stream.recvAll(lambda stream, data, total: total.__setitem__(0, total[0] + len(data)), sums)
    stream.finish()
caller = threading.Thread(target=others)
caller.start()
total = [0]
loader = threading.Thread(target=download, args=(total,))
loader.start()
guest = connection.lookupByName(sys.argv[2])
banners = 0
rounds = 0
while rounds < 10 or loader.is_alive():
    rounds += 1
    with socket.socket(fileno=guest.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)) as display:
        banners += display.recv(12) == b"RFB 003.008\\n"
    near, far = socket.socketpair()
    guest.openGraphics(0, far.fileno(), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    far.close()
    banners += near.recv(12) == b"RFB 003.008\\n"
    near.close()
loader.join()
done.set()
caller.join()
print(total[0], banners == 2 * rounds, calls[0] > 0)
`;
    try {
      const output = await said(python(script, [proxy.uri(), guest]));
      expect(output).to.equal(`${32 * 1024 * 1024} True True\n`);
    } finally {
      await define('vol-delete', 'volume', '--pool', 'passing');
      await define('pool-destroy', 'passing');
    }
  });

  it('virsh qemu-monitor-command --pass-fds', async () => {
    const add = '{"execute":"add-fd","arguments":{"fdset-id":7,"opaque":"through the proxy"}}';
    const words = ['qemu-monitor-command', guest, '--pass-fds', '3', add];
    expect(await said(virshWithFile(proxy.uri(), words, image))).to.contain('"fdset-id":7');
    const query = ['qemu-monitor-command', guest, '{"execute":"query-fdsets"}'];
    expect(await said(virsh(proxy.uri(), query))).to.contain('through the proxy');
  });

  it('virsh dom-fd-associate, for a disk that only the descriptor leads to', async () => {
    const path = join(proxy.directory, 'nothing', 'here');
    const xml = guestXml({ name: 'associated', disk: path }).replace(
      `file='${path}'`,
      `file='${path}' fdgroup='mine'`,
    );
    await said(virsh(proxy.uri(), ['define', '/dev/stdin'], { input: xml }));
    try {
      expect((await virsh(proxy.uri(), ['start', 'associated'])).code).to.equal(1);
      const commands = 'dom-fd-associate associated --name mine --pass-fds 3; start associated';
      await said(virshWithFile(proxy.uri(), [commands], image));
      await said(virsh(proxy.uri(), ['destroy', 'associated']));
    } finally {
      await virsh(proxy.uri(), ['undefine', 'associated']);
    }
  });

  it('virsh create --pass-fds, which QEMU’s driver does not serve, gets its answer', async () => {
    const file = join(proxy.directory, 'created.xml');
    await writeFile(file, guestXml({ name: 'created' }));
    const { stderr } = await virshWithFile(proxy.uri(), ['create', file, '--pass-fds', '3'], image);
    expect(stderr).to.contain(
      'not supported by the connection driver: virDomainCreateXMLWithFiles',
    );
  });

  it('the container driver’s calls get what they get without a proxy', async function () {
    const binding = await run(pythonProgram, ['-c', 'import libvirt_lxc']);
    if (!hasLxc() || binding.code !== 0) this.skip();
    const containers = await ModularHost.start({ drivers: ['lxc'] });
    const between = await Proxy.start({ cluster: containers.routesIni() });
    const direct = `lxc+unix:///system?socket=${containers.socket('lxc')}`;
    const script = `
import libvirt, libvirt_lxc, os, sys
libvirt.registerErrorHandler(lambda *_: None, None)
guest = libvirt.open(sys.argv[1]).lookupByName("box")
try:
    for fd in libvirt_lxc.lxcOpenNamespace(guest, 0):
        print(os.readlink("/proc/self/fd/%d" % fd).split(":")[0])
except libvirt.libvirtError as error:
    print(error)
`;
    try {
      const file = join(between.directory, 'box.xml');
      await writeFile(file, containerXml('box'));
      await said(virsh(direct, ['define', file]));
      // It starts only where the daemon has control groups.
      await virsh(direct, ['start', 'box']);
      const through = between.uri('lxc');
      expect(await said(python(script, [through]))).to.equal(await said(python(script, [direct])));
      const words = ['create', file, '--pass-fds', '3'];
      const answer = await virshWithFile(through, words, image);
      expect(answer).to.deep.equal(await virshWithFile(direct, words, image));
      await virsh(direct, ['destroy', 'box']);
    } finally {
      await between.stop();
      await containers.stop();
    }
  });
});
