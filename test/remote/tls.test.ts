import { appendFileSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { losesChains } from '../../lib/auth/lost-chains.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  validity,
  type CertificateFiles,
} from '../peers/certificates.js';
import { run, virsh } from '../peers/clients.js';
import { connectedClient } from '../peers/connected-client.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? certificatesLacking('virt-pki-query-dn');

const address = String.raw`(?:127\.0\.0\.\d|::1|::ffff:127\.0\.0\.1);\d+`;

describe(`TLS clients${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  let directory: string;
  let ca: Authority;
  let impostor: Authority;
  let between: Authority;
  let revokedBetween: Authority;
  let host: ModularHost;
  let proxy: Proxy;
  let port: number;

  before(async function () {
    if (obstacle !== undefined) this.skip();
    host = await sharedHost();
    directory = await freshDirectory();
    ca = Authority.create(directory, 'authority');
    impostor = Authority.create(directory, 'impostor', { name: ['cn = "authority"'] });
    const server = ca.issue('server', { purpose: purpose.server });
    const revoked = ca.issue('revoked');
    between = ca.subordinate('between');
    revokedBetween = ca.subordinate('revoked-between');
    [port] = (await freePorts(1)) as [number];
    proxy = await Proxy.start({
      conf: {
        listen_tls: 1,
        tls_port: String(port),
        ca_file: ca.cert,
        cert_file: server.cert,
        key_file: server.key,
        crl_file: ca.revoke('crl', [revoked, revokedBetween]),
        tls_allowed_dn_list: ['C=GB,*', 'CN=revoked'],
      },
      cluster: host.routesIni(),
    });
  });
  after(async () => {
    if (obstacle !== undefined) return;
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const listed = (name: string): { name: string[] } => ({ name: ['country = GB', `cn = ${name}`] });

  const uri = (pki: string, parameters = '', name = 'localhost'): string =>
    `qemu+tls://${name}:${port}/system?pkipath=${pki}${parameters}`;

  /** virsh is turned away with these words, and the log has got exactly one line, of this form. */
  async function expectRefusal(target: string, words: RegExp, line: RegExp): Promise<void> {
    const log = new LogWatch(proxy);
    const { code, stderr } = await virsh(target, ['uri']);
    expect(stderr).to.match(words);
    expect(code).to.equal(1);
    await log.onlyLine(line);
  }

  const refusedFor = (why: string): RegExp =>
    new RegExp(`: warning : rpc.tls : client \\d+ \\(tls, ${address}\\) was refused: ${why}$`);

  /** What virsh says when the server closes the connection in place of telling it to go ahead. */
  const noGoAhead = /^error: Unable to read TLS confirmation: Input\/output error$/m;

  describe('with a good certificate', () => {
    let pki: string;
    let certificate: CertificateFiles;

    before(async () => {
      certificate = ca.issue('good', {
        name: ['country = GB', 'organization = "Smith, Söhne"', 'cn = good'],
      });
      pki = await ca.pkiDirectory('pki-good', certificate);
    });

    for (const name of ['localhost', '127.0.0.1', '[::1]']) {
      it(`are served at ${name}`, async () => {
        const { stdout, stderr, code } = await virsh(uri(pki, '', name), ['uri']);
        expect(stderr).to.equal('');
        expect(stdout.trim()).to.equal(`qemu+tls://${name}:${port}/system?pkipath=${pki}`);
        expect(code).to.equal(0);
      });
    }

    it('are served with TLS 1.2 and with TLS 1.3', async () => {
      for (const version of ['1.2', '1.3']) {
        const priority = `&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS${version}`;
        const { stderr, code } = await virsh(uri(pki, priority), ['list']);
        expect(stderr).to.equal('');
        expect(code).to.equal(0);
      }
    });

    it('are known to the daemon by their name, as virt-pki-query-dn prints it', async () => {
      const { stdout } = await run('virt-pki-query-dn', [certificate.cert]);
      const dn = stdout.trim().split('\n').at(-1)!;
      expect(dn).to.contain('Söhne');
      // virt-admin shows it for remote clients only, and to the daemon the proxy is a local one.
      const daemon = host.daemon('qemu');
      const { stdout: filters } = await daemon.admin('daemon-log-filters');
      const usual = filters.replaceAll('*', '').trim();
      await daemon.admin('daemon-log-filters', `${usual} 1:daemon.remote`);
      const client = await connectedClient(uri(pki));
      const log = await daemon.log();
      await client.kill();
      await daemon.admin('daemon-log-filters', usual);
      expect(log).to.contain(`params["x509-distinguished-name"]=(string)${dn}`);
    });
  });

  it('are refused without a certificate', async () => {
    const pki = await ca.pkiDirectory('pki-none', null);
    await expectRefusal(uri(pki), noGoAhead, refusedFor('The client sent no certificate, .*'));
  });

  describe('with a certificate of another CA of the same name', () => {
    let pki: string;
    before(async () => {
      pki = await ca.pkiDirectory('pki-impostor', impostor.issue('impostors', listed('stranger')));
    });

    it('find out themselves', async () => {
      const { stderr } = await virsh(uri(pki), ['uri']);
      expect(stderr).to.match(/^error: Our own certificate .*clientcert.pem failed validation/m);
    });

    it('are refused', async () => {
      const why = `The client's certificate "C=GB,CN=stranger" is not signed by a CA of ours .*`;
      await expectRefusal(uri(pki, '&no_sanity=1'), noGoAhead, refusedFor(why));
    });
  });

  for (const [title, dates, ownWords, why] of [
    ['an expired', validity.expired, 'has expired', 'expired on Jan +1 00:00:00 2021 GMT\\.'],
    [
      'a not yet valid',
      validity.notYetValid,
      'is not yet active',
      'is not valid before Jan +1 00:00:00 2048 GMT\\.',
    ],
  ] as const) {
    describe(`with ${title} certificate`, () => {
      let pki: string;
      const name = title.replaceAll(' ', '-');
      before(async () => {
        const certificate = ca.issue(name, { ...listed(name), validity: dates });
        pki = await ca.pkiDirectory(`pki-${name}`, certificate);
      });

      it('find out themselves', async () => {
        const { stderr } = await virsh(uri(pki), ['uri']);
        expect(stderr).to.match(new RegExp(`^error: The client certificate .* ${ownWords}$`, 'm'));
      });

      it('are refused', async () => {
        const line = refusedFor(`The client's certificate "C=GB,CN=${name}" ${why}`);
        await expectRefusal(uri(pki, '&no_sanity=1'), noGoAhead, line);
      });
    });
  }

  it('are refused with a revoked certificate', async () => {
    const pki = await ca.pkiDirectory('pki-revoked', {
      cert: `${directory}/revoked.pem`,
      key: `${directory}/shared-key.pem`,
    });
    const line = refusedFor(`The client's certificate "CN=revoked" is revoked\\.`);
    await expectRefusal(uri(pki), noGoAhead, line);
  });

  describe('below another CA, whose certificate they send', () => {
    const unchecked = (name: string): RegExp =>
      refusedFor(
        `The client's certificate "C=GB,CN=${name}" is refused since its revocation cannot be ` +
          `checked: Node\\.js ${process.version} loses .*`,
      );

    /** A directory for `?pkipath=`, with the whole chain in the client's certificate. */
    async function chained(name: string, of: Authority): Promise<string> {
      const pki = await ca.pkiDirectory(`pki-${name}`, of.issue(name, listed(name)));
      appendFileSync(join(pki, 'clientcert.pem'), readFileSync(of.cert));
      return pki;
    }

    it('are served, unless node loses that', async () => {
      const target = uri(await chained('deep', between), '&no_sanity=1');
      if (losesChains()) {
        await expectRefusal(target, noGoAhead, unchecked('deep'));
        return;
      }
      const { stderr, code } = await virsh(target, ['uri']);
      expect(stderr).to.equal('');
      expect(code).to.equal(0);
    });

    it('are refused when it is revoked', async () => {
      const target = uri(await chained('below-revoked', revokedBetween), '&no_sanity=1');
      const line = refusedFor(
        `The client's certificate "C=GB,CN=below-revoked" has a revoked CA above it\\.`,
      );
      await expectRefusal(target, noGoAhead, losesChains() ? unchecked('below-revoked') : line);
    });
  });

  it('are refused with a certificate for servers only', async () => {
    const certificate = ca.issue('server-only', {
      ...listed('server-only'),
      purpose: purpose.server,
    });
    const pki = await ca.pkiDirectory('pki-server-only', certificate);
    const line = refusedFor(
      `The client's certificate "C=GB,CN=server-only" is not meant for a TLS client: .*`,
    );
    await expectRefusal(uri(pki), noGoAhead, line);
  });

  it('are refused with a name that is not on tls_allowed_dn_list', async () => {
    const pki = await ca.pkiDirectory('pki-unlisted', ca.issue('unlisted'));
    const line = refusedFor(
      `The client's certificate "CN=unlisted" has a name that is not on tls_allowed_dn_list\\.`,
    );
    await expectRefusal(uri(pki), noGoAhead, line);
  });

  it('are refused with TLS 1.1', async () => {
    const pki = await ca.pkiDirectory('pki-old', ca.issue('old', listed('old')));
    await expectRefusal(
      uri(pki, '&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS1.1'),
      /^error: authentication failed: TLS handshake failed A TLS fatal alert has been received\.$/m,
      refusedFor('The TLS handshake failed: unsupported protocol'),
    );
  });

  it('leave when the certificate names another host, which is logged as their leaving', async () => {
    const pki = await ca.pkiDirectory('pki-elsewhere', ca.issue('elsewhere', listed('elsewhere')));
    const line = new RegExp(
      `: warning : rpc.session : client \\d+ \\(tls, ${address}, DN C=GB,CN=elsewhere\\): .*` +
        'left right after the TLS handshake: .* another host name$',
    );
    const words = /^error: authentication failed: Failed to verify peer's certificate$/m;
    await expectRefusal(uri(pki, '', '127.0.0.2'), words, line);
  });
});
