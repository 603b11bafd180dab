import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import {
  account,
  ClientProcess,
  python,
  socketUri,
  startPython,
  virsh,
  type Finished,
} from './clients.js';
import { drivers } from './daemon.js';
import {
  containerXml,
  guestXml,
  networkXml,
  nwfilterXml,
  poolXml,
  secretXml,
  volumeXml,
} from './guest.js';
import { hasLxc, ModularHost, whyNoHost } from './modular-host.js';
import { freshDirectory, until } from './waiting.js';

const reason = whyNoHost();

describe(`modular host${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  let host: ModularHost;
  const mountsBefore = readFileSync('/proc/mounts', 'utf8');
  const interfacesBefore = readdirSync('/sys/class/net');

  before(async function () {
    if (reason !== null) this.skip();
    host = await ModularHost.start();
  });

  after(async () => {
    if (reason === null) await host.stop();
  });

  /** Runs virsh on a driver's socket as clients find it, and expects it to succeed. */
  async function ask(driver: (typeof drivers)[number], ...args: string[]): Promise<string> {
    return expectSuccess(await virsh(socketUri(driver, host.socket(driver)), args));
  }

  /** Has a virsh command read `text` from its standard input where it takes a file. */
  async function define(driver: (typeof drivers)[number], command: string, text: string) {
    const uri = socketUri(driver, host.socket(driver));
    const [verb = '', ...rest] = command.split(' ');
    expectSuccess(await virsh(uri, [verb, ...rest, '/dev/stdin'], { input: text }));
  }

  for (const driver of drivers) {
    it(`answers ${driver}:///system, read-only too`, async () => {
      expect(await ask(driver, 'uri')).to.contain(`${driver}+unix:///system`);
      const readOnly = socketUri(driver, `${host.socket(driver)}-ro`);
      expectSuccess(await virsh(readOnly, ['--readonly', 'uri']));
    });
  }

  it('has a routes section with a line for every daemon', () => {
    expect(host.routesIni().split('\n')).to.include(
      `network = ${host.directory}/virtnetworkd-sock`,
    );
    expect(host.routesIni().trim().split('\n')).to.have.length(drivers.length + 1);
  });

  it('keeps each daemon’s state apart from the others’', async () => {
    await define('network', 'net-define', networkXml('apart', 'apart0'));
    expect(await ask('network', 'net-list', '--all', '--name')).to.match(/^apart$/m);
    expect((await host.daemon('qemu').virsh('net-list', '--all', '--name')).stdout.trim()).to.equal(
      '',
    );
    expect(await host.daemon('network').calls('virNetworkDefineXML')).to.equal(1);
    expect(await host.daemon('qemu').calls('virNetworkDefineXML')).to.equal(0);
  });

  it('starts a network without touching the machine’s interfaces', async () => {
    await define('network', 'net-define', networkXml('isolated', 'isolated0'));
    await ask('network', 'net-start', 'isolated');
    expect(await ask('network', 'net-list', '--name')).to.contain('isolated\n');
    expect(readdirSync(host.daemon('network').inside('/sys/class/net'))).to.include('isolated0');
    expect(readdirSync('/sys/class/net')).to.deep.equal(interfacesBefore);
  });

  it('holds pools, volumes, secrets and filters, and shows interfaces and devices', async () => {
    const target = join(host.directory, 'pool');
    await mkdir(target);
    await define('storage', 'pool-define', poolXml('pool', target));
    await ask('storage', 'pool-start', 'pool');
    await define('storage', 'vol-create pool', volumeXml('volume'));
    expect(existsSync(join(target, 'volume'))).to.be.true;

    const uuid = 'd2b4b5a8-3c1e-4f0a-9b57-6d3d5d1c7e01';
    await define('secret', 'secret-define', secretXml(uuid, '/some/volume'));
    await ask('secret', 'secret-set-value', uuid, Buffer.from('open').toString('base64'));
    expect(await ask('secret', 'secret-get-value', '--plain', uuid)).to.contain('open');

    await define('nwfilter', 'nwfilter-define', nwfilterXml('filter'));
    expect(await ask('nwfilter', 'nwfilter-list')).to.contain('filter');
    expect(await ask('interface', 'iface-list')).to.contain('veth0');
    expect(await ask('nodedev', 'nodedev-list')).to.contain('computer');
  });

  it('runs an emulated guest, which outlives its daemon', async () => {
    const daemon = host.daemon('qemu');
    await define('qemu', 'define', guestXml({ name: 'guest' }));
    await ask('qemu', 'start', 'guest');
    expect(await ask('qemu', 'domstate', 'guest')).to.contain('running');
    await daemon.kill('SIGKILL');
    await daemon.launch();
    expect(await ask('qemu', 'domstate', 'guest')).to.contain('running');
    await ask('qemu', 'destroy', 'guest');
    expect(await ask('qemu', 'domstate', 'guest')).to.contain('shut off');
  });

  it('lets virsh console read what the guest’s BIOS says', async () => {
    await define('qemu', 'define', guestXml({ name: 'talker' }));
    const uri = socketUri('qemu', host.socket('qemu'));
    const console = new ClientProcess('virsh', ['-c', uri, 'start', '--console', 'talker'], {
      terminal: true,
    });
    await until(() => console.stdout.includes('SeaBIOS'), { what: 'the BIOS on the console' });
    console.write('\x1d');
    expect((await console.finished).code).to.equal(0);
    await ask('qemu', 'destroy', 'talker');
  });

  it('shows the identity a client has set, and the client’s own otherwise', async () => {
    const secret = host.daemon('secret');
    const script = `
import libvirt, sys
connection = libvirt.open(sys.argv[1])
if len(sys.argv) > 2:
    connection.setIdentity({"unix-user-id": 4242, "user-name": "fred", "process-id": 77})
print("ready")
sys.stdin.read()`;
    const user = account('nobody');
    const plain = startPython(script, [secret.uri], { user });
    const forwarded = startPython(script, [secret.uri, 'fred']);
    for (const client of [plain, forwarded]) {
      await until(() => client.stdout.includes('ready'), { what: 'the client to be connected' });
    }
    const [first, second] = (await secret.clientInfo()).sort(
      (a, b) => Number(a.unix_user_id) - Number(b.unix_user_id),
    );
    expect(first).to.include({
      unix_user_id: '4242',
      unix_user_name: 'fred',
      unix_process_id: '77',
    });
    expect(second).to.include({
      unix_user_id: String(user.uid),
      unix_user_name: 'nobody',
      unix_process_id: String(plain.pid),
    });
    for (const client of [plain, forwarded]) client.end();
    await Promise.all([plain.finished, forwarded.finished]);
  });

  it('refuses a change on the read-only socket', async () => {
    const script = `
import libvirt, sys
try:
    libvirt.openReadOnly(sys.argv[1]).defineXML("<domain/>")
except libvirt.libvirtError as error:
    print(error.get_error_code(), error)`;
    const { stdout } = await python(script, [host.daemon('qemu').readOnlyUri]);
    expect(stdout).to.match(/^29 .*read only access prevents virDomainDefineXML/);
  });

  it('has a daemon for lxc where the driver is installed', async function () {
    if (!hasLxc()) this.skip();
    const other = await ModularHost.start({ drivers: ['lxc'] });
    const uri = socketUri('lxc', other.socket('lxc'));
    const defined = await virsh(uri, ['define', '/dev/stdin'], { input: containerXml('box') });
    const list = await virsh(uri, ['list', '--all', '--name']);
    await other.stop();
    expectSuccess(defined);
    expect(list.stdout).to.match(/^box$/m);
  });

  it('explains why a daemon did not start', async () => {
    const failure = await ModularHost.start({ drivers: ['secret'], extraConf: 'max_clients = "x"' })
      .then(() => 'started')
      .catch(String);
    expect(failure).to.contain("secret's libvirtd ended at once").and.to.contain('max_clients');
  });

  it('leaves no process, mount or file when it is stopped with a guest running', async () => {
    const other = await ModularHost.start({ drivers: ['qemu', 'network'] });
    const { directory } = other;
    const qemu = other.daemon('qemu');
    const xml = guestXml({ name: 'left', vncSocket: join(directory, 'vnc') });
    expectSuccess(await virsh(qemu.uri, ['create', '/dev/stdin'], { input: xml }));
    expectSuccess(await qemu.virsh('list', '--uuid'));
    expect(processesNaming(directory)).to.have.length.above(4);
    await other.stop();
    expect(processesNaming(directory)).to.deep.equal([]);
    expect(existsSync(directory)).to.be.false;
    expect(readFileSync('/proc/mounts', 'utf8')).to.equal(mountsBefore);
  });

  it('leaves no process when the process that started it is killed', async () => {
    const directory = await freshDirectory();
    const entry = fileURLToPath(new URL('run-host.js', import.meta.url));
    const parent = new ClientProcess(process.execPath, [entry, directory]);
    await until(() => parent.stdout.includes(directory), { what: 'run-host to be ready' });
    await parent.kill('SIGKILL');
    await until(() => processesNaming(directory).length === 0, { what: 'the daemons to end' });
    await rm(directory, { recursive: true });
  });
});

function expectSuccess({ code, stdout, stderr }: Finished): string {
  expect(code, stderr).to.equal(0);
  return stdout;
}

/**
 * Ids of the processes whose command line has this directory in it: keepers, libvirtds and guests
 * with sockets there.
 */
function processesNaming(directory: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory);
    } catch {
      return false;
    }
  });
}
