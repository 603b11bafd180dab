import { rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { virtAdmin, type ClientProcess, type Finished } from '../peers/clients.js';
import { connectedClient } from '../peers/connected-client.js';
import { missingPrograms } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const missing = missingPrograms();
const obstacle =
  (process.getuid?.() === 0 ? undefined : 'needs root') ??
  (missing.length > 0 ? `needs ${missing.join(', ')}` : undefined) ??
  certificatesLacking() ??
  saslAccountsLacking();

const getHostname = 59;
const own = 'virtproxyd';

type Fields = Readonly<Record<string, string>>;

describe(`virt-admin is served:${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(60_000);
  let directory: string;
  let qemu: StandInDaemon;
  let proxy: Proxy;
  let ca: Authority;
  let accounts: SaslAccounts;
  let tcp: number;
  let tls: number;
  let pki: string;
  const clients = new Map<string, ClientProcess>();

  before(async function () {
    if (obstacle !== undefined) this.skip();
    directory = await freshDirectory();
    qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    qemu.answer(getHostname, () => encodeString('host'));
    await symlink(qemu.path, `${qemu.path}-ro`);
    ca = Authority.create(directory, 'authority');
    const server = ca.issue('server', { purpose: purpose.server });
    pki = await ca.pkiDirectory('pki', ca.issue('wilma'));
    accounts = await SaslAccounts.create({
      directory,
      mechanisms: 'DIGEST-MD5',
      users: { fred: 'secret' },
    });
    [tcp, tls] = (await freePorts(2)) as [number, number];
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf: {
        listen_tcp: 1,
        listen_tls: 1,
        tcp_port: String(tcp),
        tls_port: String(tls),
        ca_file: ca.cert,
        cert_file: server.cert,
        key_file: server.key,
      },
      env: accounts.serverEnv,
      cluster: `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = 2\n`,
    });
    const sasl = { env: await accounts.clientEnv('fred') };
    clients.set('rw', await connectedClient(proxy.uri()));
    clients.set('ro', await connectedClient(proxy.readOnlyUri()));
    clients.set('tcp', await connectedClient(`qemu+tcp://127.0.0.1:${tcp}/system`, sasl));
    clients.set('tls', await connectedClient(`qemu+tls://localhost:${tls}/system?pkipath=${pki}`));
  });
  after(async () => {
    if (obstacle !== undefined) return;
    for (const client of clients.values()) await client.kill();
    await proxy.stop();
    await qemu.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const adminSocket = (): string => join(proxy.directory, 'libvirt-admin-sock');

  const run = (...command: string[]): Promise<Finished> => virtAdmin(adminSocket(), command);

  /** What virt-admin prints; it must succeed. */
  async function ask(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await run(...command);
    expect(stderr).to.equal('');
    expect(code).to.equal(0);
    return stdout.trimEnd();
  }

  /** What virt-admin complains about; it must fail. */
  async function fail(...command: string[]): Promise<string> {
    const { code, stderr } = await run(...command);
    expect(code).to.equal(1);
    return stderr;
  }

  async function fields(...command: string[]): Promise<Fields> {
    const pairs = [...(await ask(...command)).matchAll(/^(\w+) *: ?(.*)$/gm)];
    return Object.fromEntries(pairs.map(([, name, value]) => [name!, value!]));
  }

  /** Rows of a client-list: id and transport. */
  async function listed(): Promise<[string, string][]> {
    const rows = [...(await ask('client-list', own)).matchAll(/^ *(\d+) +(\w+) +\d{4}-/gm)];
    return rows.map(([, id, transport]) => [id!, transport!]);
  }

  async function idOf(transport: string): Promise<string> {
    return (await listed()).find(([, name]) => name === transport)![0];
  }

  it('server-list and its alias srv-list name both servers', async () => {
    for (const command of ['server-list', 'srv-list']) {
      expect(await ask(command)).to.match(/^ *0 +virtproxyd\n *1 +admin$/);
    }
  });

  it('version tells the daemon’s too', async () => {
    expect(await ask('version')).to.match(/Running against daemon: \d+\.\d+\.\d+$/);
  });

  it('uri and connect work', async () => {
    expect(await ask('uri')).to.contain(adminSocket());
    await ask('connect', `libvirtd+unix:///system?socket=${adminSocket()}`);
  });

  it('client-list: the clients of all transports', async () => {
    expect((await listed()).map(([, transport]) => transport).sort()).to.deep.equal([
      'tcp',
      'tls',
      'unix',
      'unix',
    ]);
    const [[, transport] = []] = [
      ...(await ask('client-list', 'admin')).matchAll(/\d+ +(\w+) +\d{4}/g),
    ];
    expect(transport).to.equal('unix');
  });

  it('client-list of a server that is not there', async () => {
    expect(await fail('client-list', 'nosuch')).to.equal(
      "error: Server not found: No server named 'nosuch'\n",
    );
  });

  it('client-info of UNIX clients', async () => {
    const infos = await Promise.all(
      (await listed())
        .filter(([, transport]) => transport === 'unix')
        .map(([id]) => fields('client-info', own, id)),
    );
    const byPid = new Map(infos.map((info) => [info.unix_process_id, info]));
    for (const [name, readonly] of [
      ['rw', 'no'],
      ['ro', 'yes'],
    ] as const) {
      expect(byPid.get(String(clients.get(name)!.pid))).to.include({
        transport: 'unix',
        readonly,
        unix_user_id: '0',
        unix_user_name: 'root',
        unix_group_id: '0',
        unix_group_name: 'root',
      });
    }
  });

  it('client-info of a SASL client', async () => {
    const info = await fields('client-info', own, await idOf('tcp'));
    expect(info).to.include({ transport: 'tcp', readonly: 'no', sasl_user_name: 'fred' });
    expect(info.sock_addr).to.match(/^127\.0\.0\.1:\d+$/);
    expect(info).to.not.have.any.keys('unix_user_id', 'unix_process_id', 'tls_x509_dname');
    const age = Date.now() - Date.parse(info.connection_time!.replace(' ', 'T'));
    expect(age).to.be.within(-1000, 120_000);
  });

  it('client-info of a TLS client', async () => {
    const info = await fields('client-info', own, await idOf('tls'));
    expect(info).to.include({ transport: 'tls', tls_x509_dname: 'CN=wilma' });
    expect(info.sock_addr).to.match(/^(127\.0\.0\.1|\[::1\]):\d+$/);
  });

  it('client-info and client-disconnect of a client or server that is not there', async () => {
    for (const command of ['client-info', 'client-disconnect']) {
      expect(await fail(command, own, '4711')).to.equal(
        "error: Client not found: No client with matching ID '4711'\n",
      );
      expect(await fail(command, 'nosuch', '1')).to.equal(
        "error: Server not found: No server named 'nosuch'\n",
      );
      for (const id of ['one', '18446744073709551616']) {
        expect(await fail(command, own, id)).to.contain('malformed or out of range');
      }
      expect(await fail(command, own)).to.contain('requires');
    }
  });

  it('client-disconnect ends a connection, and no other', async () => {
    const victim = await connectedClient(proxy.uri());
    const before = await listed();
    const [id] = before.at(-1)!;
    expect((await fields('client-info', own, id)).unix_process_id).to.equal(String(victim.pid));
    await ask('client-disconnect', own, id);
    await until(async () => (await listed()).length === before.length - 1, { what: 'its end' });
    expect(await listed()).to.deep.equal(before.slice(0, -1));
    await victim.kill();
    expect(await fail('client-info', own, id)).to.contain(`matching ID '${id}'`);
  });

  it('server-threadpool-info counts workers', async () => {
    expect(await fields('server-threadpool-info', own)).to.deep.equal({
      minWorkers: '2',
      maxWorkers: '2',
      nWorkers: '2',
      freeWorkers: '2',
      prioWorkers: '0',
      jobQueueDepth: '0',
    });
    expect(await fields('srv-threadpool-info', 'admin')).to.include({ nWorkers: '1' });
    expect(await fail('server-threadpool-info', 'nosuch')).to.contain("No server named 'nosuch'");
  });

  it('server-threadpool-set: wrong values change nothing', async () => {
    const set = (...args: string[]): Promise<string> => fail('server-threadpool-set', own, ...args);
    expect(await set('--min-workers', '3'))
      .to.contain('minWorkers (3)')
      .and.contain('maxWorkers (2)');
    expect(await set('--max-workers', '1')).to.contain('maxWorkers (1)');
    expect(await set('--max-workers', '0', '--min-workers', '0')).to.contain('maxWorkers');
    expect(await set('--max-workers', '257')).to.contain('256');
    expect(await set('--max-workers', '4294967295')).to.contain('256');
    expect(await set('--priority-workers', '1')).to.contain('prioWorkers');
    expect(await set('--max-workers', 'many')).to.contain('malformed');
    expect(await set('--max-workers', '-1')).to.contain('malformed');
    expect(await set()).to.contain('At least one of options');
    expect(await fail('server-threadpool-set', 'admin', '--max-workers', '3')).to.contain(
      'not supported',
    );
    expect(await fail('server-threadpool-set', 'nosuch', '--max-workers', '3')).to.contain(
      'nosuch',
    );
    expect(await fields('server-threadpool-info', own)).to.include({
      minWorkers: '2',
      maxWorkers: '2',
      nWorkers: '2',
    });
    expect(proxy.workers()).to.have.length(2);
  });

  it('server-clients-info shows limits and clients', async () => {
    expect(await fields('server-clients-info', own)).to.deep.equal({
      nclients_max: '5000',
      nclients: '4',
      nclients_unauth_max: '20',
      nclients_unauth: '0',
    });
    expect(await fields('srv-clients-info', 'admin')).to.include({ nclients: '1' });
    expect(await fail('server-clients-info', 'nosuch')).to.contain("No server named 'nosuch'");
  });

  it('server-clients-set changes limits', async () => {
    await ask('server-clients-set', own, '--max-clients', '100', '--max-unauth-clients', '30');
    expect(await fields('server-clients-info', own)).to.include({
      nclients_max: '100',
      nclients_unauth_max: '30',
    });
    await ask('server-clients-set', own, '--max-unauth-clients', '20');
    await ask('srv-clients-set', own, '--max-clients', '5000');
    const set = (...args: string[]): Promise<string> => fail('server-clients-set', own, ...args);
    expect(await set('--max-clients', '19')).to.contain('nclients_max (19)');
    expect(await set('--max-unauth-clients', '5001')).to.contain('5001');
    expect(await set('--max-clients', 'all')).to.contain('malformed');
    expect(await set()).to.contain('At least one of options');
    expect(await fields('server-clients-info', own)).to.include({
      nclients_max: '5000',
      nclients_unauth_max: '20',
    });
  });

  it('daemon-log-filters shows and changes filters', async () => {
    expect(await ask('daemon-log-filters')).to.equal('');
    await ask('daemon-log-filters', '--filters', '4:relay 1:session');
    expect(await ask('daemon-log-filters')).to.equal('4:relay 1:session');
    for (const bad of ['nonsense', '9:session', '1:']) {
      expect(await fail('daemon-log-filters', '--filters', bad)).to.contain(bad);
    }
    expect(await ask('daemon-log-filters')).to.equal('4:relay 1:session');
    await ask('daemon-log-filters', '--filters', '');
    expect(await ask('daemon-log-filters')).to.equal('');
  });

  it('daemon-log-outputs shows and changes outputs', async () => {
    const before = await ask('daemon-log-outputs');
    const outputs = `2:file:${join(directory, 'log')} 3:stderr`;
    await ask('daemon-log-outputs', '--outputs', outputs);
    expect(await ask('daemon-log-outputs')).to.equal(outputs);
    for (const bad of ['nonsense', '9:stderr', '1:file:', '1:nowhere']) {
      expect(await fail('daemon-log-outputs', '--outputs', bad)).to.contain(bad);
    }
    const nowhere = join(directory, 'nowhere/log');
    expect(await fail('daemon-log-outputs', '--outputs', `1:file:${nowhere}`)).to.contain(nowhere);
    expect(await ask('daemon-log-outputs')).to.equal(outputs);
    await ask('daemon-log-outputs', '--outputs', '');
    expect(await ask('daemon-log-outputs')).to.equal(before);
  });

  it('daemon-timeout sets the time-out', async () => {
    await ask('daemon-timeout', '--timeout', '3600');
    await ask('daemon-timeout', '--timeout', '0');
    expect(await fail('daemon-timeout', '--timeout', '2147484')).to.contain('2147483');
    expect(await fail('daemon-timeout', '--timeout', 'never')).to.contain('malformed');
    expect(await fail('daemon-timeout')).to.contain('requires');
  });

  it('server-update-tls, and of a server without TLS or that is not there', async () => {
    expect(await ask('server-update-tls', own)).to.contain('update');
    expect(await fail('server-update-tls', 'admin')).to.contain('TLS');
    expect(await fail('srv-update-tls', 'nosuch')).to.contain("No server named 'nosuch'");
  });
});
