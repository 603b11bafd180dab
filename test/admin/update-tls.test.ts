import { writeFileSync } from 'node:fs';
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { expect } from 'chai';
import { adminProcedure as number } from '../../lib/admin/messages.js';
import { status } from '../../lib/rpc/frame.js';
import { encodeString } from '../../lib/rpc/session-messages.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import type { RawClient } from '../peers/raw-client.js';
import { connectTls } from '../peers/remote-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { AdminClient } from './admin-client.js';

const lacking = certificatesLacking();

const own = 'virtproxyd';
const getHostname = 59;

describe(`SERVER_UPDATE_TLS_FILES${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, function () {
  this.timeout(60_000);
  let directory: string;
  let qemu: StandInDaemon;
  let ca: Authority;
  let port: number;
  let certificate: string;
  let revocations: string;
  let proxy: Proxy;
  let admin: AdminClient;

  beforeEach(async function () {
    if (lacking !== undefined) this.skip();
    directory = await freshDirectory();
    qemu = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    qemu.answer(getHostname, () => encodeString('host'));
    [port] = (await freePorts(1)) as [number];
    await mkdir(join(directory, 'tls'));
    ca = Authority.create(directory, 'authority');
    const { cert, key } = ca.issue('first', { purpose: purpose.server });
    certificate = join(directory, 'tls/cert.pem');
    revocations = join(directory, 'tls/crl.pem');
    await copyFile(cert, certificate);
    await copyFile(ca.revoke('none', []), revocations);
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf: {
        listen_tls: 1,
        tls_port: String(port),
        ca_file: ca.cert,
        cert_file: certificate,
        key_file: key,
        crl_file: revocations,
      },
      cluster: `[routes]\nqemu = ${qemu.path}\n[cluster]\nworkers = 2\n`,
    });
    admin = await AdminClient.connect(join(proxy.directory, 'libvirt-admin-sock'));
  });
  afterEach(async () => {
    if (lacking !== undefined) return;
    admin.destroy();
    await proxy.stop('SIGKILL');
    await qemu.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const update = (): Promise<unknown> =>
    admin.ask(number.serverUpdateTlsFiles, (writer) => writer.string(own).unsigned(0));

  const connect = (name: string): Promise<RawClient> =>
    connectTls({ port, ca: ca.cert, certificate: ca.issue(name) });

  const served = (client: RawClient): string =>
    (client.socket as unknown as TLSSocket).getPeerCertificate().subject.CN as string;

  it('has all workers take the files anew, and connections stay', async () => {
    const old = await connect('client');
    expect(served(old)).to.equal('first');
    expect((await old.openUri('qemu:///system')).status).to.equal(status.ok);
    await copyFile(ca.issue('second', { purpose: purpose.server }).cert, certificate);
    await update();
    const fresh = await Promise.all(['a', 'b', 'c', 'd'].map(connect));
    expect(fresh.map(served)).to.deep.equal(['second', 'second', 'second', 'second']);
    expect((await old.call(getHostname)).status === status.ok).to.be.true;
    for (const client of [old, ...fresh]) client.destroy();
  });

  it('counts for workers that come later, and what was never read does not', async () => {
    const second = ca.issue('second', { purpose: purpose.server }).cert;
    const servedByNewWorkers = async (): Promise<string> => {
      const before = proxy.workers();
      for (const pid of before) process.kill(pid, 'SIGKILL');
      await until(
        () => {
          const now = proxy.workers();
          return now.length === 2 && !now.some((pid) => before.includes(pid));
        },
        { what: 'other workers' },
      );
      const client = await connect('client');
      const name = served(client);
      client.destroy();
      return name;
    };
    await copyFile(second, certificate);
    expect(await servedByNewWorkers()).to.equal('first');
    await update();
    writeFileSync(certificate, 'rubbish');
    expect(await servedByNewWorkers()).to.equal('second');
  });

  it('has a new revocation list count from then on', async () => {
    const revoked = ca.issue('revoked');
    const client = await connectTls({ port, ca: ca.cert, certificate: revoked });
    await copyFile(ca.revoke('some', [revoked]), revocations);
    await update();
    const refused = await connectTls({ port, ca: ca.cert, certificate: revoked }).then(
      () => 'let in',
      () => 'turned away',
    );
    expect(refused).to.equal('turned away');
    expect(client.ended).to.be.false;
    client.destroy();
  });

  it('is refused with the reason when a file is bad, and the old ones serve on', async () => {
    const bad: [string, () => Promise<void> | void][] = [
      ['does not hold', () => writeFileSync(certificate, 'rubbish')],
      ['not meant for a TLS server', () => copyFile(ca.issue('client').cert, certificate)],
      ['Cannot read', () => rm(certificate)],
    ];
    for (const [reason, spoil] of bad) {
      await spoil();
      const error = await admin.refused(number.serverUpdateTlsFiles, (writer) =>
        writer.string(own).unsigned(0),
      );
      expect(error.message).to.contain(reason).and.to.contain(certificate);
      const client = await connect('client');
      expect(served(client)).to.equal('first');
      client.destroy();
    }
  });
});
