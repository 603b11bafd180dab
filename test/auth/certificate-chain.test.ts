import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { chainStanding, type ChainStanding } from '../../lib/auth/certificate-chain.js';
import { RevocationLists } from '../../lib/auth/revocation-lists.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  validity,
  type CertificateFiles,
} from '../peers/certificates.js';

const lacking = certificatesLacking();

describe(`chainStanding${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let directory: string;
  let root: Authority;
  let other: Authority;
  let between: Authority;
  /** The same CA as `between`, by the other root. */
  let crossed: CertificateFiles;
  let plain: CertificateFiles;
  let deep: CertificateFiles;
  let lists = 0;

  before(function () {
    if (lacking !== undefined) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'chains-'));
    root = Authority.create(directory, 'root');
    other = Authority.create(directory, 'other');
    between = root.subordinate('between');
    crossed = other.issue('crossed', {
      name: ['cn = "between"'],
      purpose: purpose.authority,
      key: between.key,
    });
    plain = root.issue('plain');
    deep = between.issue('deep');
  });
  after(() => {
    if (lacking === undefined) rmSync(directory, { recursive: true, force: true });
  });

  const read = ({ cert }: CertificateFiles): X509Certificate =>
    new X509Certificate(readFileSync(cert));

  /** As node hands certificates over: each is the `issuerCertificate` of the one before. */
  function handedOver([first, ...others]: readonly CertificateFiles[]): X509Certificate {
    const certificate = read(first!);
    const value = others.length === 0 ? undefined : handedOver(others);
    return Object.defineProperty(certificate, 'issuerCertificate', { value });
  }

  /** A list of `by` with these on it; other CAs have none. */
  function revoking(by: Authority, ...revoked: readonly CertificateFiles[]): RevocationLists {
    const file = readFileSync(by.revoke(`list-${(lists += 1)}`, revoked), 'latin1');
    return new RevocationLists([Buffer.from(file.replace(/-----[^-]*-----/g, ''), 'base64')]);
  }

  function standing(
    sent: readonly CertificateFiles[],
    ours: readonly CertificateFiles[],
    revocations = revoking(root),
  ): ChainStanding {
    return chainStanding(handedOver(sent), ours.map(read), revocations, new Date());
  }

  it('is good below a CA of ours, whether that is sent or not', () => {
    expect(standing([plain], [root])).to.equal('good');
    expect(standing([plain, root], [other, root])).to.equal('good');
    expect(standing([deep, between], [root])).to.equal('good');
    expect(standing([deep, between, root], [root])).to.equal('good');
  });

  it('is unknown where a certificate between is missing, or the CA is not ours', () => {
    expect(standing([deep], [root])).to.equal('unknown');
    expect(standing([deep, root], [root])).to.equal('unknown');
    expect(standing([deep, between], [other])).to.equal('unknown');
    expect(standing([plain, root], [other])).to.equal('unknown');
  });

  it('needs nothing sent that is in the CA file, with its root or without', () => {
    expect(standing([deep], [root, between])).to.equal('good');
    expect(standing([deep], [between])).to.equal('good');
    expect(standing([deep, between], [between])).to.equal('good');
  });

  it('is revoked with the certificate or a CA above it, sent or in the CA file', () => {
    expect(standing([plain], [root], revoking(root, plain))).to.equal('revoked');
    const revocations = revoking(root, between);
    expect(standing([deep, between], [root], revocations)).to.equal('revoked');
    expect(standing([deep, between], [root, between], revocations)).to.equal('revoked');
    expect(standing([deep], [root, between], revocations)).to.equal('revoked');
    expect(standing([deep], [between], revocations)).to.equal('revoked');
  });

  it('is revoked with a CA of ours above one of ours', () => {
    const lower = between.subordinate('lower');
    const below = lower.issue('below-lower');
    const ours = [root, between, lower];
    expect(standing([below], ours)).to.equal('good');
    expect(standing([below], ours, revoking(root, between))).to.equal('revoked');
  });

  it('takes what was sent in any order, with others among it', () => {
    const lower = between.subordinate('lowest');
    const below = lower.issue('below-lowest');
    expect(standing([below, root, plain, between, lower], [root])).to.equal('good');
    expect(standing([below, root, plain, between], [root])).to.equal('unknown');
  });

  it('knows a CA that several others have signed', () => {
    expect(standing([deep, crossed], [other])).to.equal('good');
    expect(standing([deep, crossed, between], [root])).to.equal('good');
    expect(standing([deep, between, crossed], [other])).to.equal('good');
    expect(standing([deep, crossed], [root])).to.equal('unknown');
  });

  it('needs one way past what is revoked, but nothing revoked may be sent', () => {
    const revocations = revoking(root, between);
    expect(standing([deep, crossed], [root, other], revocations)).to.equal('good');
    expect(standing([deep], [root, other, between, crossed], revocations)).to.equal('good');
    expect(standing([deep, crossed, between], [other], revocations)).to.equal('revoked');
  });

  it('follows a CA that signed its next key, and ends with two that signed each other', () => {
    const renewed = root.subordinate('renewed', { name: ['cn = "root"'] });
    const client = renewed.issue('of-renewed');
    expect(standing([client, renewed], [root])).to.equal('good');
    expect(standing([client], [root])).to.equal('unknown');
    const signed = (by: Authority, name: string, key: string): CertificateFiles =>
      by.issue(`${name}-signed`, { name: [`cn = "${name}"`], purpose: purpose.authority, key });
    const mutual = [signed(other, 'root', root.key), signed(root, 'other', other.key)];
    expect(standing([plain, ...mutual], [between])).to.equal('unknown');
    expect(standing([plain, ...mutual], [other])).to.equal('good');
  });

  it('is unknown above a certificate outside its time, and above very many', () => {
    const old = root.subordinate('old', { validity: validity.expired });
    expect(standing([old.issue('of-old'), old], [root])).to.equal('unknown');
    const many = Array.from({ length: 16 }, () => plain);
    expect(standing([deep, ...many, between], [root])).to.equal('unknown');
    expect(standing([deep, ...many.slice(1), between], [root])).to.equal('good');
  });

  it('is not taken from names alone', () => {
    const twin = Authority.create(directory, 'twin', { name: ['cn = "root"'] });
    expect(standing([plain], [twin])).to.equal('unknown');
    expect(standing([twin.issue('of-twin'), twin], [root])).to.equal('unknown');
  });
});
