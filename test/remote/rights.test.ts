import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { AuditEntry } from '../../lib/logging/audit-file.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import {
  account,
  ClientProcess,
  python,
  pythonProgram,
  startPython,
  virsh,
  virtAdmin,
  type ClientOptions,
} from '../peers/clients.js';
import { openConnection } from '../peers/connected-client.js';
import { guestXml } from '../peers/guest.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { programFile, Proxy, startProgram } from '../peers/proxy.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { Scrape } from '../peers/scrape.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory, until } from '../peers/waiting.js';

const obstacle =
  whyNoHost() ?? certificatesLacking('virt-pki-query-dn') ?? saslAccountsLacking() ?? null;

const activator = '/usr/bin/systemd-socket-activate';
const bothFamilies = '/proc/sys/net/ipv6/bindv6only';
const mappedLacking = !existsSync(activator)
  ? `needs ${activator}`
  : existsSync(bothFamilies) && readFileSync(bothFamilies, 'utf8').trim() === '0'
    ? null
    : 'needs IPv6';

const guest = guestXml({ name: 'rights-guest' });

/** What a read-only connection is told by each daemon. */
const forbidden =
  ['virDomainDefineXML', 'virNetworkDefineXML', 'virStoragePoolDefineXML']
    .map((name) => `29 operation forbidden: read only access prevents ${name}\n`)
    .join('') + 'looked\n';
/** One that may write has the XML judged. */
const judged = /^27 .*\n27 .*\n27 .*\nlooked\n$/;

/** Tries to write at three daemons, looks at two, and stays until its input ends. */
const tryAll = `
def tryAll():
    for define in connection.defineXML, connection.networkDefineXML, connection.storagePoolDefineXML:
        try:
            define("<x/>")
            print("defined")
        except libvirt.libvirtError as error:
            print(error.get_error_code(), error)
    connection.listAllDomains()
    connection.listAllNetworks()
    print("looked", flush=True)
`;
const staying = `${openConnection}
libvirt.registerErrorHandler(lambda *_: None, None)
${tryAll}
tryAll()
for line in sys.stdin:
    tryAll()
`;
const openingAndTrying = `${openConnection}
libvirt.registerErrorHandler(lambda *_: None, None)
${tryAll}
tryAll()
`;
const openingReadOnly = `
import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.openReadOnly(sys.argv[1])
${tryAll}
tryAll()
`;

describe(`clients that may only look${obstacle === null ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(60_000);
  let host: ModularHost;
  let directory: string;
  let proxy: Proxy;
  let accounts: SaslAccounts;
  let cluster: string;
  let tcp: number;
  let tls: number;
  const pki: Record<string, string> = {};
  const clients: ClientProcess[] = [];
  const [nobody, daemon] = obstacle === null ? [account('nobody'), account('daemon')] : [];

  before(async function () {
    if (obstacle !== null) this.skip();
    host = await sharedHost();
    directory = await freshDirectory();
    const ca = Authority.create(directory, 'authority');
    const server = ca.issue('server', { purpose: purpose.server });
    for (const name of ['monitor', 'alice']) {
      pki[name] = await ca.pkiDirectory(`pki-${name}`, ca.issue(name));
    }
    const users = { carol: 'carol-secret', 'mon*': 'other-secret', monitor: 'secret' };
    accounts = await SaslAccounts.create({ directory, mechanisms: 'SCRAM-SHA-256', users });
    [tcp, tls] = (await freePorts(2)) as [number, number];
    const paths = `[metrics]\nlisten = ${directory}/metrics\n[log]\naudit = ${directory}/audit\n`;
    cluster = `${host.routesIni()}${paths}[access]
read_only_dn_list[] = CN=mon*
read_only_username_list = monitor
`;
    proxy = await Proxy.start({
      directory: join(directory, 'proxy'),
      conf: {
        unix_sock_rw_perms: '0777',
        listen_tcp: 1,
        tcp_port: String(tcp),
        auth_tcp: 'none',
        listen_tls: 1,
        tls_port: String(tls),
        auth_tls: 'sasl',
        ca_file: ca.cert,
        cert_file: server.cert,
        key_file: server.key,
        log_level: 2,
      },
      cluster: withAccess(),
      env: accounts.serverEnv,
    });
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.kill()));
  });
  after(async () => {
    if (obstacle !== null) return;
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const withAccess = (lines = ''): string => `${cluster}${lines}`;

  /** Puts further lines of [access] in force. */
  async function reload(lines: string): Promise<void> {
    const log = new LogWatch(proxy);
    await writeFile(join(proxy.directory, 'virtproxyd-cluster.ini'), withAccess(lines));
    proxy.signal('SIGHUP');
    await log.line(/reloaded: generation \d+ serves/);
  }

  const overTls = (name: string): string =>
    `qemu+tls://localhost:${tls}/system?pkipath=${pki[name]!}`;
  const overTcp = (address: string): string => `qemu+tcp://${address}:${tcp}/system`;

  async function stay(uri: string, options?: ClientOptions): Promise<ClientProcess> {
    const client = startPython(staying, [uri], options);
    clients.push(client);
    await until(() => client.stdout.includes('looked\n'), {
      what: `a client of ${uri}, which said ${client.stderr}`,
    });
    return client;
  }

  /** What the proxy's administrator sees of its clients. */
  async function clientInfos(): Promise<string[]> {
    const socket = join(proxy.directory, 'libvirt-admin-sock');
    const { stdout } = await virtAdmin(socket, ['client-list', 'virtproxyd']);
    const ids = [...stdout.matchAll(/^\s*(\d+)\s/gm)].map(([, id]) => id!);
    const infos = ids.map((id) => virtAdmin(socket, ['client-info', 'virtproxyd', id]));
    return (await Promise.all(infos)).map((info) => info.stdout);
  }

  const monitor = (): Promise<Record<string, string>> => accounts.clientEnv('monitor');
  const carol = (): Promise<Record<string, string>> => accounts.clientEnv('carol');

  it('are shown by virt-admin, both logs, metrics and daemons', async () => {
    const log = new LogWatch(proxy);
    const reader = await stay(overTls('monitor'), { env: await carol() });
    const writer = await stay(overTls('alice'), { env: await carol() });
    expect(reader.stdout).to.equal(forbidden);
    expect(writer.stdout).to.match(judged);
    const infos = await clientInfos();
    const infoOf = (dn: string): string => infos.find((info) => info.includes(dn)) ?? '';
    expect(infoOf('CN=monitor')).to.match(/^readonly\s*: yes$/m);
    expect(infoOf('CN=alice')).to.match(/^readonly\s*: no$/m);
    for (const driver of ['qemu', 'network', 'storage'] as const) {
      const theirs = await host.daemon(driver).clientInfo();
      const carols = theirs.filter((info) => info['sasl_user_name'] === 'carol');
      expect(
        carols.map(({ readonly }) => readonly),
        driver,
      ).to.have.members(['yes', 'no']);
    }
    const scrape = await Scrape.of({ socketPath: join(directory, 'metrics') });
    for (const [state, rights, count] of [
      ['serving', 'read-only', 1],
      ['serving', 'read-write', 1],
      ['login', 'undecided', 0],
    ] as const) {
      const name = `virtproxyd_clients{transport="tls",state="${state}",rights="${rights}"}`;
      expect(scrape.value(name), name).to.equal(count);
    }
    await reader.kill();
    await log.line(
      /client \d+ \(tls, .*SASL user carol, DN CN=monitor, read-only by read_only_dn_list\): .* calls?/,
    );
    const entries = await until(
      () => {
        const found = readFileSync(join(directory, 'audit'), 'utf8').split('\n').filter(Boolean);
        return found.length >= 6 ? found.map((line) => JSON.parse(line) as AuditEntry) : null;
      },
      { what: 'the audit entries of six calls' },
    );
    const gist = entries.map(({ dn, rights, status }) => `${dn ?? ''} ${rights} ${status}`);
    expect([...new Set(gist)].sort()).to.deep.equal([
      'CN=alice read-write error',
      'CN=monitor read-only error',
    ]);
  });

  for (const [what, name, login, isReadOnly] of [
    ['a listed name and an unlisted user', 'monitor', carol, true],
    ['an unlisted name and a listed user', 'alice', monitor, true],
    ['neither', 'alice', carol, false],
    ['a user called like a glob', 'alice', () => accounts.clientEnv('mon*'), false],
  ] as const) {
    it(`are ${isReadOnly ? '' : 'not '}those with ${what}, for virsh`, async () => {
      const options = { env: await login(), input: guest };
      const { stdout } = await virsh(overTls(name), ['list', '--all'], options);
      expect(stdout).to.not.contain('rights-guest');
      const { code, stderr } = await virsh(overTls(name), ['define', '/dev/stdin'], options);
      if (isReadOnly) {
        expect(stderr).to.match(
          /^error: operation forbidden: read only access prevents virDomainDefineXML$/m,
        );
        expect(code).to.equal(1);
      } else {
        expect(code, stderr).to.equal(0);
        await virsh(host.daemon('qemu').uri, ['undefine', 'rights-guest']);
      }
      expect((await virsh(overTls(name), ['-r', 'list'], options)).code).to.equal(0);
    });
  }

  it('become so by a reload, but for those who are there', async () => {
    const before = await stay(proxy.uri(), { user: nobody! });
    expect(before.stdout).to.match(judged);
    await reload('read_only_users[] = nobody\nread_only_users[] = no-such-user\n');
    const after = await stay(proxy.uri(), { user: nobody! });
    expect(after.stdout).to.equal(forbidden);
    const other = await stay(proxy.uri(), { user: daemon! });
    expect(other.stdout).to.match(judged);
    const { stdout } = await python(openingReadOnly, [proxy.uri()], { user: nobody! });
    expect(stdout).to.equal(forbidden);
    before.write('again\n');
    await until(() => before.stdout.match(/looked\n/g)?.length === 2, { what: 'the second try' });
    expect(before.stdout.slice(before.stdout.length / 2)).to.match(judged);
    expect(proxy.log()).to.match(
      /warning : .*ini:\d+: \[access\] read_only_users names 'no-such-user', but there is no such user/,
    );
    const infos = await clientInfos();
    const readOnly = (pid: number): string | undefined =>
      /^readonly\s*: (\w+)$/m.exec(
        infos.find((info) => info.includes(`unix_process_id: ${pid}\n`)) ?? '',
      )?.[1];
    expect([before, after, other].map(({ pid }) => readOnly(pid))).to.deep.equal([
      'no',
      'yes',
      'no',
    ]);
    await reload('');
    expect((await stay(proxy.uri(), { user: nobody! })).stdout).to.match(judged);
  });

  it('are those of a group that only their process has', async () => {
    await reload('read_only_groups = 54321\n');
    const outcomes: string[] = [];
    for (const group of [54321, 54322]) {
      const ids = ['--reuid', 'daemon', '--regid', 'daemon', '--groups', String(group)];
      const command = [...ids, '--', pythonProgram, '-u', '-c', staying, proxy.uri()];
      const client = new ClientProcess('setpriv', command);
      clients.push(client);
      await until(() => client.stdout.includes('looked\n'), { what: 'the client' });
      outcomes.push(client.stdout);
    }
    expect(outcomes[0]).to.equal(forbidden);
    expect(outcomes[1]).to.match(judged);
  });

  it('are those of an address', async () => {
    await reload('read_only_addresses = 127.0.0.0/8\n');
    expect((await stay(overTcp('127.0.0.1'))).stdout).to.equal(forbidden);
    expect((await stay(overTcp('[::1]'))).stdout).to.match(judged);
    await reload('read_only_addresses[] = ::1/128\n');
    expect((await stay(overTcp('[::1]'))).stdout).to.equal(forbidden);
    expect((await stay(overTcp('127.0.0.1'))).stdout).to.match(judged);
  });

  it(`are those of an IPv4 address on a socket of both families${mappedLacking === null ? '' : ` (skipped: ${mappedLacking})`}`, async function () {
    if (mappedLacking !== null) this.skip();
    // As systemd opens them for ListenStream=16509.
    const own = join(directory, 'activated');
    const [port] = (await freePorts(1)) as [number];
    await mkdir(own);
    await writeFile(
      join(own, 'virtproxyd.conf'),
      `unix_sock_dir = "${own}"\nauth_tcp = "none"\nlog_level = 2\n`,
    );
    const ini = `${host.routesIni()}[access]\nread_only_addresses = 127.0.0.0/8\n`;
    await writeFile(join(own, 'virtproxyd-cluster.ini'), ini);
    const listening = ['--listen', `[::]:${port}`, '--fdname', 'virtproxyd-tcp.socket'];
    const daemon = ['-f', join(own, 'virtproxyd.conf'), '-p', join(own, 'pid')];
    const activated = new ClientProcess('setpriv', [
      ...['--pdeathsig', 'KILL', '--', activator, ...listening],
      ...[process.execPath, programFile, ...daemon],
    ]);
    clients.push(activated);
    await until(() => activated.stderr.includes('Listening on'), { what: 'the socket' });
    const uri = `qemu+tcp://127.0.0.1:${port}/system`;
    const { stdout, stderr } = await python(openingAndTrying, [uri]);
    expect(stdout, stderr).to.equal(forbidden);
    await until(
      () =>
        /\(tcp, ::ffff:127\.0\.0\.1;\d+, read-only by read_only_addresses\)/.test(activated.stderr),
      { what: 'the line of its end' },
    );
    const other = await python(openingAndTrying, [`qemu+tcp://[::1]:${port}/system`]);
    expect(other.stdout, other.stderr).to.match(judged);
    await activated.kill('SIGTERM');
  });

  it('are all of a listener', async () => {
    await reload('read_only_listeners = tcp\n');
    expect((await stay(overTcp('127.0.0.1'))).stdout).to.equal(forbidden);
    expect((await stay(proxy.uri())).stdout).to.match(judged);
  });

  it('stay so when root speaks for somebody else', async () => {
    await reload('read_only_users = root\n');
    const script = `${openConnection}
libvirt.registerErrorHandler(lambda *_: None, None)
try:
    connection.setIdentity({"unix-user-id": 2, "user-name": "bin"})
    print("set")
except libvirt.libvirtError as error:
    print(error)
${tryAll}
tryAll()
`;
    const { stdout, stderr } = await python(script, [proxy.uri()]);
    expect(stdout, stderr).to.match(/^.*\n29 /);
    expect(stdout.slice(stdout.indexOf('\n') + 1)).to.equal(forbidden);
  });
});

describe('--check-config of [access]', () => {
  async function check(lines: string): Promise<{ code: number | null; stdout: string }> {
    const directory = await freshDirectory();
    await writeFile(join(directory, 'virtproxyd.conf'), '');
    await writeFile(join(directory, 'virtproxyd-cluster.ini'), `[access]\n${lines}`);
    const file = join(directory, 'virtproxyd.conf');
    const { code, stdout } = await startProgram(['--check-config', '-f', file]).finished;
    await rm(directory, { recursive: true });
    return { code, stdout };
  }

  it('warns of lists that can name nobody', async () => {
    const { code, stdout } = await check('read_only_dn_list = *\nread_only_users = no-such-user\n');
    expect(stdout).to.match(
      /^warning: .*\.ini:2: \[access\] read_only_dn_list can name nobody while listen_tls is 0\.$/m,
    );
    expect(stdout).to.match(/^warning: .*\.ini:3: .*there is no such user on this host\.$/m);
    expect(code).to.equal(0);
  });

  it('refuses a misspelt key, which would leave somebody all rights', async () => {
    const { code, stdout } = await check('read_only_user = root\n');
    expect(stdout).to.match(/^error: .*\.ini:2: \[access\] has no key read_only_user, but only /m);
    expect(code).to.equal(1);
  });
});
