import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  chainWarnings,
  loadTlsCredentials,
  readTlsFiles,
  TlsCredentialsError,
  type TlsCredentials,
  type TlsCredentialsFault,
} from '../../lib/auth/tls-credentials.js';
import type { TlsFiles } from '../../lib/config/paths.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  validity,
  type CertificateFiles,
} from '../peers/certificates.js';

const lacking = certificatesLacking();

describe(`loadTlsCredentials${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let directory: string;
  let authority: Authority;
  let good: TlsFiles;

  const load = (
    changes: Partial<TlsFiles>,
    { sanityCheck = true, priority = null as string | null } = {},
  ): TlsCredentials =>
    loadTlsCredentials(readTlsFiles({ ...good, ...changes }), {
      sanityCheck,
      priority,
      verifyClients: true,
    });

  function expectFault(
    changes: Partial<TlsFiles>,
    code: TlsCredentialsFault,
    file: string,
    text: string | RegExp,
  ): void {
    expect(() => load(changes))
      .to.throw(TlsCredentialsError, text)
      .with.include({ code, file });
  }

  /** Writes a file of the test's directory and returns its path. */
  function write(name: string, ...contents: readonly (string | Buffer)[]): string {
    const file = join(directory, name);
    writeFileSync(file, contents.map(String).join('\n'));
    return file;
  }

  const server = (name: string, lines: readonly string[], of = authority): CertificateFiles =>
    of.issue(name, { purpose: lines });

  before(function () {
    if (lacking !== undefined) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'credentials-'));
    authority = Authority.create(directory, 'authority');
    const files = authority.issue('server', { purpose: purpose.server });
    good = { ca: authority.cert, crl: null, ...files };
  });
  after(() => {
    if (lacking === undefined) rmSync(directory, { recursive: true, force: true });
  });

  it('gives what a TLS server needs', () => {
    const { serverOptions, authorities, notAfter, warnings, verifyClients } = load({});
    expect(serverOptions).to.include({
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
    });
    expect(authorities).to.have.length(1);
    expect(warnings).to.deep.equal([]);
    expect(verifyClients).to.equal(true);
    const inDays = (days: number): number => Date.now() + days * 86_400_000;
    expect(notAfter.cert.getTime()).to.be.within(inDays(29), inDays(31));
    expect(notAfter.ca.getTime()).to.be.within(inDays(29), inDays(31));
  });

  for (const kind of ['ca', 'crl', 'cert', 'key'] as const) {
    it(`names ${kind}'s file when it is missing, empty, garbage or cut off`, () => {
      const missing = join(directory, 'absent.pem');
      expectFault({ [kind]: missing }, 'unreadable', missing, new RegExp(`absent.*${kind}_file`));
      const whole = kind === 'crl' ? authority.revoke('whole', []) : good[kind];
      const content = readFileSync(whole, 'latin1');
      const wrong = { empty: '', garbage: 'hello', cut: content.slice(0, content.length / 2) };
      for (const [name, text] of Object.entries(wrong)) {
        const file = write(`${kind}-${name}.pem`, text);
        expectFault({ [kind]: file }, 'unparsable', file, file);
      }
      const label = /-----BEGIN ([A-Z0-9 ]*)-----/.exec(content)![1]!;
      const hollow = write(
        `${kind}-hollow.pem`,
        `-----BEGIN ${label}-----\nMAMCAQA=\n-----END ${label}-----\n`,
      );
      expectFault({ [kind]: hollow }, 'unparsable', hollow, hollow);
    });
  }

  it('names a file that is longer than a worker could be told of', () => {
    const long = write('long.pem', readFileSync(good.key), ' '.repeat(1024 ** 2));
    expectFault(
      { key: long },
      'unparsable',
      long,
      /long\.pem has \d+ bytes, and a private key may/,
    );
  });

  it('needs no file any more once they are read', () => {
    const cert = write('short-lived-cert.pem', readFileSync(good.cert));
    const key = write('short-lived-key.pem', readFileSync(good.key));
    const files = readTlsFiles({ ...good, cert, key });
    for (const file of [cert, key]) rmSync(file);
    expect(
      loadTlsCredentials(files, { sanityCheck: true, priority: null, verifyClients: true })
        .warnings,
    ).to.deep.equal([]);
  });

  it('reads text around the blocks, several authorities and a chain', () => {
    const other = Authority.create(directory, 'other');
    const between = authority.subordinate('between');
    const files = server('chained', purpose.server, between);
    const ca = write(
      'several.pem',
      'Subject: x',
      readFileSync(other.cert),
      'and',
      readFileSync(authority.cert),
    );
    const cert = write('chain.pem', readFileSync(files.cert), readFileSync(between.cert));
    const { authorities, serverOptions } = load({ ca, cert, key: files.key });
    expect(authorities).to.have.length(2);
    expect(String(serverOptions.cert).match(/BEGIN CERTIFICATE/g)).to.have.length(2);
    expectFault({ cert: files.cert, key: files.key }, 'untrusted', files.cert, authority.cert);
  });

  it('accepts an authority below a root that the file does not hold', () => {
    const between = authority.subordinate('without-root');
    const files = server('below', purpose.server, between);
    expect(load({ ca: between.cert, ...files }).authorities).to.have.length(1);
  });

  it('accepts elliptic keys without key encipherment', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = write('ec-key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const { cert } = authority.issue('ec', { key, purpose: purpose.server });
    expect(load({ cert, key }).warnings).to.deep.equal([]);
  });

  it('refuses a key of another certificate', () => {
    expectFault({ key: authority.key }, 'key-mismatch', authority.key, good.cert);
    expect(() => load({ key: authority.key }, { sanityCheck: false })).to.throw(good.cert);
  });

  it('refuses certificates outside their time', () => {
    const expired = authority.issue('expired', {
      validity: validity.expired,
      purpose: purpose.server,
    });
    expectFault(
      expired,
      'expired',
      expired.cert,
      /server certificate .*CN=expired.* expired on 2021-01-01/,
    );
    const early = authority.issue('early', {
      validity: validity.notYetValid,
      purpose: purpose.server,
    });
    expectFault(early, 'not-yet-valid', early.cert, /not valid before 2048-01-01/);
    for (const name of ['expired', 'notYetValid'] as const) {
      const other = Authority.create(directory, `ca-${name}`, { validity: validity[name] });
      const ca = write(
        `ca-list-${name}.pem`,
        readFileSync(authority.cert),
        readFileSync(other.cert),
      );
      const code = name === 'expired' ? 'expired' : 'not-yet-valid';
      expectFault({ ca }, code, ca, new RegExp(`CA certificate .*CN=ca-${name}`));
    }
  });

  it('refuses certificates for something else', () => {
    const lone = Authority.create(directory, 'no-ca', { purpose: [] });
    expectFault({ ca: lone.cert }, 'not-a-ca', lone.cert, /CN=no-ca/);
    const mute = Authority.create(directory, 'mute-ca', { purpose: ['ca', 'crl_signing_key'] });
    expectFault({ ca: mute.cert }, 'key-usage', mute.cert, 'certificate signing');
    expectFault(authority, 'is-a-ca', authority.cert, 'one of a CA');
    const client = server('client', purpose.client);
    expectFault(client, 'purpose', client.cert, 'TLS server');
    const unsigned = server('unsigned', ['tls_www_server', 'encryption_key']);
    expectFault(unsigned, 'key-usage', unsigned.cert, 'digital signature');
    const clear = server('clear', ['tls_www_server', 'signing_key']);
    expectFault(clear, 'key-usage', clear.cert, 'key encipherment');
  });

  it('accepts certificates that do not say what they are for, or for anything', () => {
    expect(load(server('plain', [])).warnings).to.deep.equal([]);
    const any = ['key_purpose_oid = 2.5.29.37.0', 'signing_key', 'encryption_key'];
    expect(load(server('any', any)).warnings).to.deep.equal([]);
  });

  it('refuses a certificate of another CA, even of the same name', () => {
    const stranger = server('stranger', purpose.server, Authority.create(directory, 'elsewhere'));
    expectFault(stranger, 'untrusted', stranger.cert, good.ca);
    const twin = Authority.create(directory, 'twin', { name: ['cn = "authority"'] });
    expectFault({ ca: twin.cert }, 'untrusted', good.cert, twin.cert);
  });

  it('checks nothing of that without the sanity check', () => {
    const lone = Authority.create(directory, 'unchecked', { purpose: [] });
    const expired = authority.issue('stale', { validity: validity.expired, purpose: [] });
    const { notAfter } = load({ ca: lone.cert, ...expired }, { sanityCheck: false });
    expect(notAfter.cert.getUTCFullYear()).to.equal(2021);
  });

  it('knows who is revoked, and warns about an overdue list', () => {
    const bad = authority.issue('bad');
    const { authorities } = load({});
    const fresh = authority.revoke('fresh', [bad]);
    expect(load({ crl: fresh }).warnings).to.deep.equal(chainWarnings(fresh));
    const crl = authority.revoke('overdue', [bad], {
      thisUpdate: '2020-01-01 00:00:00 UTC',
      nextUpdate: '2020-02-01 00:00:00 UTC',
    });
    const { warnings, revocations } = load({ crl });
    expect(warnings.join()).to.contain(crl).and.to.contain('2020-02-01');
    expect(revocations.nextUpdate?.toISOString()).to.equal('2020-02-01T00:00:00.000Z');
    expect(authorities.some((certificate) => revocations.revoked(certificate))).to.equal(false);
  });

  it('takes the newest of several lists of one CA', () => {
    const bad = authority.issue('held-for-a-while');
    const older = authority.revoke('older', [bad], { thisUpdate: '2024-01-01 00:00:00 UTC' });
    const newer = authority.revoke('newer', [], { thisUpdate: '2025-01-01 00:00:00 UTC' });
    const [certificate] = load({ ca: bad.cert }, { sanityCheck: false }).authorities;
    for (const order of [
      [older, newer],
      [newer, older],
    ]) {
      const crl = write('lists.pem', ...order.map((file) => readFileSync(file)));
      expect(load({ crl }).revocations.revoked(certificate!)).to.equal(false);
    }
    expect(load({ crl: older }).revocations.revoked(certificate!)).to.equal(true);
  });

  it('passes the priority on', () => {
    expect(load({}, { priority: 'NORMAL:-VERS-TLS1.3' }).serverOptions.maxVersion).to.equal(
      'TLSv1.2',
    );
    expect(() => load({}, { priority: 'NORMAL:+3DES-CBC' }))
      .to.throw()
      .with.include({ code: 'TLS_PRIORITY', token: '+3DES-CBC' });
  });

  it("tells OpenSSL's reason for what only OpenSSL refuses", () => {
    expect(() => load({}, { priority: 'NORMAL:%PROFILE_FUTURE' }))
      .to.throw(TlsCredentialsError, /key too small/)
      .with.include({ code: 'rejected', file: good.cert });
  });
});
