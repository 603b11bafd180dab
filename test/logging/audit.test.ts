import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { AuditEntry } from '../../lib/logging/audit-file.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { virsh } from '../peers/clients.js';
import { guestXml, networkXml } from '../peers/guest.js';
import { whyNoHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

/**
 * DOMAIN_CREATE, DOMAIN_DESTROY and NETWORK_CREATE change something; CONNECT_GET_HOSTNAME does not.
 */
const domainCreate = 9;
const domainDestroy = 12;
const networkCreate = 39;
const getHostname = 59;

function entriesIn(path: string): AuditEntry[] {
  const text = readFileSync(path, 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as AuditEntry);
}

/** What of entries is the same in every run. */
const gist = (entries: readonly AuditEntry[]): string[] =>
  entries.map(({ procedure, daemon, status }) => `${procedure} ${daemon ?? 'none'} ${status}`);

describe('audit', () => {
  let directory: string;
  let proxy: Proxy;
  let qemu: StandInDaemon;
  const audit = (): AuditEntry[] => entriesIn(join(directory, 'audit'));
  const entries = (count: number): Promise<AuditEntry[]> =>
    until(() => (audit().length >= count ? audit() : null), { what: `${count} audit entries` });

  before(async () => {
    directory = await freshDirectory();
    const routes = `qemu = ${directory}/qemu\nnetwork = ${directory}/network\n`;
    proxy = await Proxy.start({
      directory,
      cluster: `[routes]\n${routes}[log]\naudit = ${directory}/audit\n`,
    });
  });
  after(() => proxy.stop());
  beforeEach(async () => {
    qemu = await StandInDaemon.listen(join(directory, 'qemu'));
    qemu.answer(getHostname, () => Buffer.alloc(0));
    writeFileSync(join(directory, 'audit'), '');
  });
  afterEach(() => qemu.stop());

  it('records who changed what, where, with what result, and how long it took', async () => {
    const client = await proxy.open('qemu:///system');
    const serial = client.begin(domainCreate);
    const link = await qemu.connection();
    const call = await link.takeCall(domainCreate);
    await client.ping();
    link.reply(call);
    await client.replyTo(serial);
    await client.call(getHostname);
    client.begin(domainDestroy);
    link.reply(
      await link.takeCall(domainDestroy),
      new RpcError(errorCode.system, errorDomain.rpc, 'no'),
    );
    const [first, second, ...others] = await entries(2);
    client.destroy();
    expect(others).to.deep.equal([]);
    expect(first).to.include({
      transport: 'unix',
      uid: process.getuid?.(),
      pid: process.pid,
      rights: 'read-write',
      procedure: 'DOMAIN_CREATE',
      daemon: 'virtqemud',
      status: 'ok',
    });
    expect(first!.user).to.be.a('string');
    expect(Date.parse(first!.time)).to.be.closeTo(Date.now(), 20_000);
    expect(first!.duration_ms).to.be.within(0.001, 20_000);
    expect(first!.client).to.be.a('number');
    expect(gist([second!])).to.deep.equal(['DOMAIN_DESTROY virtqemud error']);
  });

  it('records what no daemon could be given, and what no reply came to', async () => {
    const network = await StandInDaemon.listen(join(directory, 'network'));
    network.answer(
      1,
      () => new RpcError(errorCode.system, errorDomain.rpc, 'this daemon opens for nobody'),
    );
    const client = await proxy.open('qemu:///system');
    await client.call(networkCreate);
    client.begin(domainCreate);
    const link = await qemu.connection();
    await link.takeCall(domainCreate);
    link.destroy();
    await entries(2);
    client.destroy();
    const other = await proxy.open('qemu:///system');
    other.begin(domainDestroy);
    await (await qemu.connection(1)).takeCall(domainDestroy);
    other.destroy();
    expect(gist(await entries(3))).to.deep.equal([
      'NETWORK_CREATE none error',
      'DOMAIN_CREATE virtqemud lost',
      'DOMAIN_DESTROY virtqemud lost',
    ]);
    await network.stop();
  });

  it('can be turned off and on by a reload, for the clients that are there too', async () => {
    const client = await proxy.open('qemu:///system');
    qemu.answer(domainCreate, () => Buffer.alloc(0));
    const ini = join(directory, 'virtproxyd-cluster.ini');
    const before = readFileSync(ini, 'utf8');
    const reloads = (): number => proxy.log().match(/reloaded/g)?.length ?? 0;
    expect(reloads()).to.equal(0);
    writeFileSync(ini, before.replace(/audit = .*/, ''));
    writeFileSync(
      join(directory, 'virtproxyd.conf'),
      `${readFileSync(join(directory, 'virtproxyd.conf'), 'utf8')}log_level = 2\n`,
    );
    proxy.signal('SIGHUP');
    await until(() => reloads() === 1, { what: 'the reload' });
    await client.call(domainCreate);
    writeFileSync(ini, before);
    proxy.signal('SIGHUP');
    await until(() => reloads() === 2, { what: 'the second reload' });
    await client.call(domainCreate);
    client.destroy();
    expect(gist(await entries(1))).to.deep.equal(['DOMAIN_CREATE virtqemud ok']);
  });
});

const reason = whyNoHost();

describe(`audit of virsh${reason === null ? '' : ` (skipped: ${reason})`}`, function () {
  this.timeout(60_000);
  let proxy: Proxy;

  before(async function () {
    if (reason !== null) this.skip();
    const host = await sharedHost();
    const directory = await freshDirectory();
    proxy = await Proxy.start({
      directory,
      cluster: `${host.routesIni()}[log]\naudit = ${directory}/audit\n`,
    });
  });
  after(() => (reason === null ? proxy.stop() : null));

  it('has a line for everything that virsh changes, and none for what it asks', async () => {
    const ask = async (args: string[], input = ''): Promise<number | null> =>
      (await virsh(proxy.uri(), args, { input })).code;
    expect(await ask(['define', '/dev/stdin'], guestXml({ name: 'audited' }))).to.equal(0);
    expect(await ask(['start', '--paused', 'audited'])).to.equal(0);
    expect(await ask(['start', 'audited'])).to.equal(1);
    expect(await ask(['dominfo', 'audited'])).to.equal(0);
    expect(await ask(['dumpxml', 'audited'])).to.equal(0);
    expect(await ask(['list', '--all'])).to.equal(0);
    expect(await ask(['destroy', 'audited'])).to.equal(0);
    expect(await ask(['undefine', 'audited'])).to.equal(0);
    expect(await ask(['net-define', '/dev/stdin'], networkXml('audited-net', 'audited0'))).to.equal(
      0,
    );
    expect(await ask(['net-list', '--all'])).to.equal(0);
    expect(await ask(['net-undefine', 'audited-net'])).to.equal(0);
    const path = join(proxy.directory, 'audit');
    await until(() => entriesIn(path).at(-1)?.procedure === 'NETWORK_UNDEFINE', {
      what: 'the last entry',
    });
    expect(gist(entriesIn(path))).to.deep.equal([
      'DOMAIN_DEFINE_XML virtqemud ok',
      'DOMAIN_CREATE_WITH_FLAGS virtqemud ok',
      'DOMAIN_DESTROY virtqemud ok',
      'DOMAIN_UNDEFINE_FLAGS virtqemud ok',
      'NETWORK_DEFINE_XML virtnetworkd ok',
      'NETWORK_UNDEFINE virtnetworkd ok',
    ]);
    expect(entriesIn(path).every(({ uid, user }) => uid === 0 && user === 'root')).to.be.true;
  });
});
