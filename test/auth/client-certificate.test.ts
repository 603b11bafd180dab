import { execFile } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type TLSSocket } from 'node:tls';
import { expect } from 'chai';
import { matchesAny } from '../../lib/auth/allow-list.js';
import {
  peerCertificate,
  verifyClientCertificate,
  type ClientCertificateFault,
  type ClientCertificateVerdict,
} from '../../lib/auth/client-certificate.js';
import { losesChains } from '../../lib/auth/lost-chains.js';
import {
  loadTlsCredentials,
  readTlsFiles,
  type TlsCredentials,
} from '../../lib/auth/tls-credentials.js';
import type { TlsFiles } from '../../lib/config/paths.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  validity,
  type CertificateFiles,
} from '../peers/certificates.js';

const lacking = certificatesLacking('openssl', 'gnutls-cli');
/** The refusal where a chain is not known. */
const unchecked = [
  'unchecked',
  /"CN=.*" is refused since its revocation cannot be checked: .*Node\.js v\d+\.\d+\.\d+/,
] as const;
const anyPurpose = ['key_purpose_oid = 2.5.29.37.0', 'signing_key', 'encryption_key'];

interface Situation {
  readonly files?: Partial<TlsFiles>;
  readonly verifyClients?: boolean;
  readonly allowed?: readonly string[];
  readonly priority?: string;
}

describe(`verifyClientCertificate${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let directory: string;
  let authority: Authority;
  let stranger: Authority;
  let files: TlsFiles;
  let good: CertificateFiles;

  before(function () {
    if (lacking !== undefined) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'clients-'));
    authority = Authority.create(directory, 'authority');
    stranger = Authority.create(directory, 'stranger');
    files = {
      ca: authority.cert,
      crl: null,
      ...authority.issue('server', { purpose: purpose.server }),
    };
    good = authority.issue('good', { name: ['organization = "Org"', 'cn = "good, one"'] });
  });
  after(() => {
    if (lacking === undefined) rmSync(directory, { recursive: true, force: true });
  });

  function load({ files: changes, verifyClients = true, priority }: Situation): TlsCredentials {
    const options = { sanityCheck: true, verifyClients, priority: priority ?? null };
    return loadTlsCredentials(readTlsFiles({ ...files, ...changes }), options);
  }

  /** Runs clients one after the other against one server; returns what it said of each. */
  async function serve<T>(
    credentials: TlsCredentials,
    inspect: (socket: TLSSocket) => T,
    clients: readonly (readonly [program: string, ...options: string[]])[],
  ): Promise<T[]> {
    const seen: T[] = [];
    const server = createServer(credentials.serverOptions);
    server.on('secureConnection', (socket) => {
      socket.on('error', () => undefined);
      seen.push(inspect(socket));
      socket.end('bye');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = String((server.address() as AddressInfo).port);
    for (const [program, ...options] of clients) {
      const all = options.map((option) => option.replace('PORT', port));
      // Their standard input stays open: they end when the server ends the connection.
      await new Promise<void>((resolve) => {
        execFile(program, all, { timeout: 5000 }, () => resolve());
      });
    }
    await new Promise<void>((resolve) => void server.close(() => resolve()));
    return seen;
  }

  const withOpenssl = (client: CertificateFiles | null, ...options: string[]) => {
    const own = client === null ? [] : ['-cert', client.cert, '-key', client.key];
    return ['openssl', 's_client', '-connect', '127.0.0.1:PORT', ...own, ...options] as const;
  };

  /** The verdict on a client that shows this certificate in a real handshake. */
  async function verdict(
    client: CertificateFiles | null,
    situation: Situation = {},
    ...options: string[]
  ): Promise<ClientCertificateVerdict> {
    const credentials = load(situation);
    const { allowed } = situation;
    const allows = allowed ? (dn: string) => matchesAny(allowed, dn) : null;
    const [seen] = await serve(
      credentials,
      (socket) => verifyClientCertificate(peerCertificate(socket), credentials, allows),
      [withOpenssl(client, ...options)],
    );
    return seen!;
  }

  async function expectRefusal(
    code: ClientCertificateFault,
    text: string | RegExp,
    ...handshake: Parameters<typeof verdict>
  ): Promise<void> {
    const result = await verdict(...handshake);
    expect(result).to.include({ ok: false, code });
    if (!result.ok)
      expect(result.reason).to.match(new RegExp(text), result.reason).and.match(/\.$/);
  }

  async function expectAcceptance(...handshake: Parameters<typeof verdict>): Promise<void> {
    expect(await verdict(...handshake)).to.include({ ok: true, ignored: null });
  }

  it('lets a good certificate in and tells its name', async () => {
    const accepted = { ok: true, dn: 'O=Org,CN=good\\, one', ignored: null };
    expect(await verdict(good)).to.deep.equal(accepted);
    expect(await verdict(good, { priority: 'NORMAL:-VERS-TLS1.3' })).to.deep.equal(accepted);
  });

  it('lets in one that does not say what it is for, or for anything', async () => {
    await expectAcceptance(authority.issue('plain', { purpose: [] }));
    await expectAcceptance(authority.issue('any', { purpose: anyPurpose }));
  });

  it('lets in an elliptic key, which has no key encipherment', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = join(directory, 'elliptic-key.pem');
    writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await expectAcceptance(authority.issue('elliptic', { key }));
  });

  it('refuses a client without a certificate', async () => {
    await expectRefusal('missing', 'no certificate', null);
  });

  it('refuses a certificate of another CA, of one that has the same name, and its own', async () => {
    const strange = stranger.issue('strange');
    await expectRefusal('untrusted', 'CN=strange', strange);
    await expectRefusal('untrusted', 'CN=strange', strange, {}, '-cert_chain', stranger.cert);
    const twin = Authority.create(directory, 'twin', { name: ['cn = "authority"'] });
    await expectRefusal('untrusted', 'CN=of-twin', twin.issue('of-twin'));
    const own = Authority.create(directory, 'own', { purpose: purpose.client });
    await expectRefusal('untrusted', 'CN=own', own);
  });

  it('refuses another CA behind every fault that could hide it', async () => {
    const any = stranger.issue('strange-any', { purpose: anyPurpose });
    await expectRefusal('purpose', 'CN=strange-any', any, {}, '-cert_chain', stranger.cert);
    await expectRefusal('untrusted', 'CN=strange-any', any);
    const below = stranger
      .subordinate('strange-below')
      .issue('strange-deep', { purpose: anyPurpose });
    const chain = join(directory, 'strange-below.pem');
    await expectRefusal('purpose', 'CN=strange-deep', below, {}, '-cert_chain', chain);
    const twin = Authority.create(directory, 'any-twin', { name: ['cn = "authority"'] });
    const ofTwin = twin.issue('any-of-twin', { purpose: anyPurpose });
    const result = await verdict(ofTwin, {}, '-cert_chain', twin.cert);
    expect(result.ok).to.equal(false);
  });

  it('refuses an unknown critical extension, whatever the purpose', async () => {
    const critical = 'add_critical_extension = "1.2.3.4 0x0500"';
    const plain = authority.issue('critical', { purpose: [...purpose.client, critical] });
    await expectRefusal('untrusted', 'breaks a rule', plain);
    const any = authority.issue('critical-any', { purpose: [...anyPurpose, critical] });
    expect((await verdict(any)).ok).to.equal(false);
  });

  it('refuses certificates outside their time', async () => {
    const expired = authority.issue('expired', { validity: validity.expired });
    await expectRefusal('expired', '"CN=expired" expired on .*2021', expired);
    const early = authority.issue('early', { validity: validity.notYetValid });
    await expectRefusal('not-yet-valid', '"CN=early" is not valid before .*2048', early);
    const both = { validity: validity.expired, purpose: anyPurpose };
    await expectRefusal('expired', 'CN=expired-any', authority.issue('expired-any', both));
  });

  it('refuses a certificate under an expired CA, with its root or without', async () => {
    const old = authority.subordinate('old-between', { validity: validity.expired });
    const client = old.issue('under-old');
    await expectRefusal('expired', 'CA certificate above', client, {}, '-cert_chain', old.cert);
    const any = old.issue('any-under-old', { purpose: anyPurpose });
    const credentials = { ...load({}), authorities: [new X509Certificate(readFileSync(old.cert))] };
    const certificate = new X509Certificate(readFileSync(any.cert));
    for (const chainError of ['INVALID_PURPOSE', 'UNABLE_TO_GET_ISSUER_CERT']) {
      const result = verifyClientCertificate({ certificate, chainError }, credentials, null);
      expect(result.ok, chainError).to.equal(false);
    }
  });

  it('refuses certificates for something else', async () => {
    const server = authority.issue('server-only', { purpose: purpose.server });
    await expectRefusal('purpose', '"CN=server-only" .*TLS client', server);
    const code = authority.issue('code', { purpose: ['code_signing_key', 'signing_key'] });
    await expectRefusal('purpose', 'CN=code', code);
    const unsigned = ['tls_www_client', 'encryption_key'];
    const mute = authority.issue('unsigned', { purpose: unsigned });
    await expectRefusal('key-usage', 'digital signature', mute);
    const clear = ['tls_www_client', 'signing_key'];
    await expectRefusal(
      'key-usage',
      'key encipherment',
      authority.issue('clear', { purpose: clear }),
    );
    const below = authority.subordinate('is-ca', { purpose: ['ca', ...purpose.client] });
    await expectRefusal('is-a-ca', 'CN=is-ca', below);
    await expectRefusal('is-a-ca', 'CN=authority', authority);
  });

  it('refuses a revoked certificate, by an overdue list too, and needs no list of every CA', async () => {
    const bad = authority.issue('bad');
    const ca = join(directory, 'both.pem');
    writeFileSync(ca, readFileSync(authority.cert, 'utf8') + readFileSync(stranger.cert, 'utf8'));
    const dates = [
      {},
      { thisUpdate: '2020-01-01 00:00:00 UTC', nextUpdate: '2020-02-01 00:00:00 UTC' },
      { thisUpdate: '2048-01-01 00:00:00 UTC', nextUpdate: '2048-02-01 00:00:00 UTC' },
    ];
    for (const [index, times] of dates.entries()) {
      const crl = authority.revoke(`list-${index}`, [bad], times);
      await expectRefusal('revoked', '"CN=bad" is revoked', bad, { files: { crl } });
      await expectAcceptance(good, { files: { crl } });
      await expectAcceptance(stranger.issue(`of-the-other-${index}`), { files: { ca, crl } });
    }
  });

  it('knows chains: through one, a revoked one, one without its root', async () => {
    const between = authority.subordinate('between');
    const client = between.issue('deep');
    await expectAcceptance(client, {}, '-cert_chain', between.cert);
    await expectRefusal('untrusted', 'CN=deep', client);
    const crl = authority.revoke('of-between', [between]);
    const chain = ['-cert_chain', between.cert];
    const [code, text] = losesChains() ? unchecked : (['revoked', 'revoked CA above'] as const);
    await expectRefusal(code, text, client, { files: { crl } }, ...chain);
    const others = { files: { crl: authority.revoke('of-others', [good]) } };
    if (losesChains()) await expectRefusal(...unchecked, client, others, ...chain);
    else await expectAcceptance(client, others, ...chain);
    const rootless = {
      ca: between.cert,
      ...between.issue('rootless', { purpose: purpose.server }),
    };
    await expectAcceptance(client, { files: rootless });
    await expectRefusal('untrusted', 'CN=good', good, { files: rootless });
  });

  it('checks what is revoked in chains through a CA that its file holds, sent or not', async () => {
    const between = authority.subordinate('held');
    const client = between.issue('of-held');
    const ca = join(directory, 'with-held.pem');
    writeFileSync(ca, readFileSync(authority.cert, 'utf8') + readFileSync(between.cert, 'utf8'));
    const revoked = { files: { ca, crl: authority.revoke('held-list', [between]) } };
    const others = { files: { ca, crl: authority.revoke('not-held-list', [good]) } };
    for (const chain of [[], ['-cert_chain', between.cert]]) {
      await expectRefusal('revoked', 'revoked CA above', client, revoked, ...chain);
      await expectAcceptance(client, others, ...chain);
    }
  });

  it('refuses what cannot be checked, with the version of Node.js, and only with a list', () => {
    const between = authority.subordinate('lost');
    const certificate = new X509Certificate(readFileSync(between.issue('of-lost').cert));
    const lost = { certificate, chainError: null };
    const crl = authority.revoke('lost-list', []);
    const result = verifyClientCertificate(lost, load({ files: { crl } }), null);
    expect(result).to.include({ ok: false, code: unchecked[0] });
    expect(result).to.have.property('reason').that.matches(unchecked[1]);
    expect(verifyClientCertificate(lost, load({}), null)).to.include({ ok: true });
  });

  it('compares the name with the list', async () => {
    await expectAcceptance(good, { allowed: ['O=Nobody', 'O=Org,CN=*'] });
    await expectRefusal('not-allowed', 'CN=good.* tls_allowed_dn_list', good, {
      allowed: ['CN=*'],
    });
    await expectRefusal('not-allowed', 'tls_allowed_dn_list', good, { allowed: [] });
  });

  it('quotes a name so that it cannot fake a log line', async () => {
    const { certificate, chainError } = await new Promise<ReturnType<typeof peerCertificate>>(
      (resolve) => {
        const name = ['cn = "a"', 'dn_oid = "2.5.4.12 x\ty"'];
        const client = stranger.issue('odd', { name });
        void serve(load({}), (socket) => resolve(peerCertificate(socket)), [withOpenssl(client)]);
      },
    );
    const result = verifyClientCertificate({ certificate, chainError }, load({}), null);
    expect(result).to.have.property('reason').that.contains('x\\ty').and.not.contains('\t');
  });

  it('lets everybody in when clients are not verified, and says what was ignored', async () => {
    const situation = { verifyClients: false };
    expect(await verdict(good, situation)).to.include({ ok: true, ignored: null });
    const clients = [
      null,
      stranger.issue('unverified'),
      authority.issue('ex', { validity: validity.expired }),
    ];
    const ignored: unknown[] = [];
    for (const client of clients) {
      const result = await verdict(client, situation);
      expect(result).to.include({ ok: true, dn: null });
      ignored.push(result.ok && result.ignored?.code);
    }
    expect(ignored).to.deep.equal(['missing', 'untrusted', 'expired']);
    const unlisted = await verdict(good, { ...situation, allowed: [] });
    expect(unlisted).to.deep.include({ ok: true, dn: null });
  });

  it('takes an unverified socket for untrusted', () => {
    const certificate = new X509Certificate(readFileSync(stranger.issue('bare').cert));
    const socket = {
      authorized: false,
      authorizationError: null,
      getPeerX509Certificate: () => certificate,
    } as unknown as TLSSocket;
    const result = verifyClientCertificate(peerCertificate(socket), load({}), null);
    expect(result).to.include({ ok: false, code: 'untrusted' });
  });

  it('refuses a certificate it cannot read', () => {
    const certificate = { raw: Buffer.from('3000', 'hex') } as unknown as X509Certificate;
    const result = verifyClientCertificate({ certificate, chainError: null }, load({}), null);
    expect(result).to.include({ ok: false, code: 'unreadable' });
  });

  it('judges the certificates of gnutls-cli alike', async () => {
    const credentials = load({});
    const client = ({ cert, key }: CertificateFiles) =>
      ['gnutls-cli', '--insecure', '--x509certfile', cert, '--x509keyfile', key].concat([
        '--port',
        'PORT',
        'localhost',
      ]) as [string, ...string[]];
    const verdicts = await serve(
      credentials,
      (socket) => verifyClientCertificate(peerCertificate(socket), credentials, null),
      [client(good), client(stranger.issue('gnutls-stranger'))],
    );
    expect(verdicts.map(({ ok }) => ok)).to.deep.equal([true, false]);
  });

  for (const version of ['-tls1_2', '-tls1_3']) {
    it(`never resumes a session with ${version}, so that every one is judged`, async () => {
      const session = join(directory, `session${version}`);
      const reused = await serve(load({}), (socket) => socket.isSessionReused(), [
        withOpenssl(good, version, '-sess_out', session),
        withOpenssl(good, version, '-sess_in', session),
      ]);
      expect(reused).to.deep.equal([false, false]);
      expect(readFileSync(session, 'utf8')).to.contain('BEGIN SSL SESSION');
    });
  }
});
