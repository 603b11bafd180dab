import type { X509Certificate } from 'node:crypto';
import { isIssuedBy, validityAt } from './certificate-fields.js';
import type { RevocationLists } from './revocation-lists.js';

/**
 * What revocation lists say of a chain:
 * - `good` it leads up to a CA of ours, and nothing on this way is revoked
 * - `revoked` something is
 * - `unknown` it leads to no CA of ours, as far as its certificates are known
 */
export type ChainStanding = 'good' | 'revoked' | 'unknown';

/**
 * Certificates above a client's own that are followed; GnuTLS, and so libvirt's daemons, take no
 * more either.
 */
const longestChain = 16;

/**
 * A client's certificate, then those it sent with it, in any order. Some may be missing: a client
 * need not send what we have, and node loses them in some versions.
 */
function sentCertificates(certificate: X509Certificate): X509Certificate[] {
  const sent: X509Certificate[] = [];
  for (let at: X509Certificate | undefined = certificate; at; at = at.issuerCertificate) {
    sent.push(at);
  }
  return sent;
}

/**
 * Looks for a way from the client's certificate up to a CA of ours, and on to the highest of ours,
 * past nothing that is revoked or outside its time; OpenSSL, which verified a chain, does not tell
 * which one. So no certificate that was never seen is taken for a good one. There may be several
 * ways, since a CA may have certificates of several others: one that holds is enough, but nothing
 * that was sent may be revoked. Throws DerError.
 */
export function chainStanding(
  certificate: X509Certificate,
  authorities: readonly X509Certificate[],
  revocations: RevocationLists,
  now: Date,
): ChainStanding {
  const sent = sentCertificates(certificate);
  if (sent.some((one) => revocations.revoked(one))) return 'revoked';
  const ours = new Set(authorities.map(({ fingerprint256 }) => fingerprint256));
  const others = sent.slice(1, longestChain + 1);
  const reached = new Map([[certificate.fingerprint256, certificate]]);
  let standing: ChainStanding = 'unknown';
  // The map grows on the way, and holds each certificate once, so a loop of them ends.
  for (const [fingerprint, at] of reached) {
    if (validityAt(at, now) !== 'valid') continue;
    if (revocations.revoked(at)) {
      standing = 'revoked';
      continue;
    }
    const isOurs = ours.has(fingerprint);
    if (isOurs && isIssuedBy(at, at)) return 'good';
    // Above a CA of ours only what we trust ourselves counts.
    const above = (isOurs ? authorities : [...authorities, ...others]).filter((one) =>
      isIssuedBy(at, one),
    );
    if (isOurs && above.length === 0) return 'good';
    for (const one of above) reached.set(one.fingerprint256, one);
  }
  return standing;
}
