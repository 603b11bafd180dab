import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { chainStanding } from './certificate-chain.js';
import {
  certificateFields,
  issuerOf,
  keyPurpose,
  servesPurpose,
  validityAt,
  type CertificateFields,
} from './certificate-fields.js';
import { DerError } from './der.js';
import { distinguishedName } from './distinguished-name.js';
import { losesChains } from './lost-chains.js';
import type { TlsCredentials } from './tls-credentials.js';

/**
 * Why a client's certificate was refused:
 * - `missing` it sent none
 * - `untrusted` no CA of ours issued it, or its chain does not hold
 * - `expired`, `not-yet-valid` its time, or that of a certificate above it
 * - `is-a-ca`, `key-usage`, `purpose` it is not meant for a TLS client
 * - `revoked` a revocation list has it, or one above it
 * - `unchecked` there are revocation lists, but not all certificates between it and a CA of ours
 * are known
 * - `unreadable` it has no name that could be compared with a list, or it or one above it is
 * malformed
 * - `not-allowed` its name is not on tls_allowed_dn_list
 */
export type ClientCertificateFault =
  | 'missing'
  | 'untrusted'
  | 'expired'
  | 'not-yet-valid'
  | 'is-a-ca'
  | 'key-usage'
  | 'purpose'
  | 'revoked'
  | 'unchecked'
  | 'unreadable'
  | 'not-allowed';

/** `reason` is a full sentence for the log, with the distinguished name if there is one. */
export interface ClientCertificateRefusal {
  readonly ok: false;
  readonly code: ClientCertificateFault;
  readonly reason: string;
}

/**
 * `dn` is null where clients are not verified and this one has no good certificate; `ignored` then
 * says what would have been the refusal.
 */
export interface ClientCertificateAcceptance {
  readonly ok: true;
  readonly dn: string | null;
  readonly ignored: ClientCertificateRefusal | null;
}

export type ClientCertificateVerdict = ClientCertificateAcceptance | ClientCertificateRefusal;

/** What a handshake brought. */
export interface PeerCertificate {
  /**
   * The client's own; with those it sent after it as its `issuerCertificate`, one by one, where
   * node keeps them.
   */
  readonly certificate: X509Certificate | undefined;
  /** The last fault OpenSSL found in the chain, as 'CERT_HAS_EXPIRED'; null if there is none. */
  readonly chainError: string | null;
}

/**
 * The facts of a socket that `tls.Server` has announced with 'secureConnection'. A TLSSocket made
 * without such a server does not tell OpenSSL's verdict and counts as unverified.
 */
export function peerCertificate(socket: TLSSocket): PeerCertificate {
  const { authorized } = socket;
  // A string, unlike its type.
  const error = socket.authorizationError as unknown as string | null;
  return {
    certificate: socket.getPeerX509Certificate(),
    chainError: authorized ? null : (error ?? 'UNVERIFIED'),
  };
}

/**
 * Faults of OpenSSL's that the proof in `issuedDirectly` and the checks of the purpose here make up
 * for: a CA file without the root above its authority, and a certificate for any purpose.
 *
 * OpenSSL reports only the last fault it finds. Those it may have found before these are that the
 * chain leads nowhere, which the proof disproves, and unknown critical extensions, which it looks
 * for.
 */
const curableChainErrors: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'INVALID_PURPOSE',
]);

/** Basic constraints, key usage, extended key usage and alternative names. */
const knownExtensions: ReadonlySet<string> = new Set([
  '2.5.29.15',
  '2.5.29.17',
  '2.5.29.19',
  '2.5.29.37',
]);

/** Characters of a name in a log line. */
const longestName = 500;

const chainFaults: Readonly<Record<string, ClientCertificateFault>> = {
  CERT_HAS_EXPIRED: 'expired',
  CERT_NOT_YET_VALID: 'not-yet-valid',
  INVALID_PURPOSE: 'purpose',
};

/**
 * Decides about a client after a handshake that let every certificate pass. `allows` is the test of
 * tls_allowed_dn_list, null without a list. The rules are libvirt's, but where it only warns about
 * a purpose that is not marked critical, the client is refused.
 */
export function verifyClientCertificate(
  peer: PeerCertificate,
  credentials: Pick<TlsCredentials, 'authorities' | 'revocations' | 'verifyClients'>,
  allows: ((dn: string) => boolean) | null,
  now = new Date(),
): ClientCertificateVerdict {
  let verdict: ClientCertificateVerdict;
  try {
    verdict = judge(peer, credentials, allows, now);
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    verdict = refusal('unreadable', `The client's certificate cannot be read. ${error.message}`);
  }
  if (verdict.ok || credentials.verifyClients) return verdict;
  return { ok: true, dn: null, ignored: verdict };
}

function judge(
  { certificate, chainError }: PeerCertificate,
  { authorities, revocations }: Pick<TlsCredentials, 'authorities' | 'revocations'>,
  allows: ((dn: string) => boolean) | null,
  now: Date,
): ClientCertificateVerdict {
  if (certificate === undefined) {
    return refusal('missing', 'The client sent no certificate, or has none of a CA we told it.');
  }
  const dn = distinguishedName(certificate.raw);
  const fields = certificateFields(certificate.raw);
  // Names come from strangers: quoted so that they cannot fake a log line, and cut.
  const refuse = (code: ClientCertificateFault, reason: string): ClientCertificateRefusal =>
    refusal(code, `The client's certificate ${JSON.stringify(dn.slice(0, longestName))} ${reason}`);

  const validity = validityAt(certificate, now);
  if (validity === 'expired') return refuse(validity, `expired on ${certificate.validTo}.`);
  if (validity === 'not-yet-valid') {
    return refuse(validity, `is not valid before ${certificate.validFrom}.`);
  }
  if (chainError !== null) {
    const cured =
      curableChainErrors.has(chainError) && issuedDirectly(certificate, fields, authorities, now);
    if (!cured) return refuse(chainFaults[chainError] ?? 'untrusted', chainReason(chainError));
  }
  if (fields.authority) return refuse('is-a-ca', 'is one of a CA, not of a client.');
  if (!servesPurpose(certificate, keyPurpose.clientAuthentication)) {
    return refuse('purpose', 'is not meant for a TLS client: its extended key usage lacks it.');
  }
  const lacking = lackingKeyUsage(certificate, fields);
  if (lacking !== null) return refuse('key-usage', `has a key usage that lacks ${lacking}.`);
  if (!revocations.none) {
    if (revocations.revoked(certificate)) return refuse('revoked', 'is revoked.');
    const standing = chainStanding(certificate, authorities, revocations, now);
    if (standing === 'revoked') return refuse(standing, 'has a revoked CA above it.');
    if (standing === 'unknown') return refuse('unchecked', uncheckedReason());
  }
  if (allows !== null && !allows(dn)) {
    return refuse('not-allowed', 'has a name that is not on tls_allowed_dn_list.');
  }
  return { ok: true, dn, ignored: null };
}

function refusal(code: ClientCertificateFault, reason: string): ClientCertificateRefusal {
  return { ok: false, code, reason };
}

function chainReason(chainError: string): string {
  switch (chainError) {
    case 'CERT_HAS_EXPIRED':
      return 'has an expired CA certificate above it.';
    case 'CERT_NOT_YET_VALID':
      return 'has a CA certificate above it that is not valid yet.';
    case 'INVALID_PURPOSE':
      return 'is not meant for a TLS client: it or a CA above it does not allow that.';
    default:
      return /^(UNABLE|SELF_SIGNED|DEPTH_ZERO)/.test(chainError)
        ? `is not signed by a CA of ours (OpenSSL: ${chainError}).`
        : `or one above it breaks a rule for certificates (OpenSSL: ${chainError}).`;
  }
}

function uncheckedReason(): string {
  const { version } = process;
  const why = losesChains(version)
    ? `Node.js ${version} loses the certificates that a client sends above its own; use another version`
    : `the chain cannot be followed up to a CA of ours with Node.js ${version}`;
  return `is refused since its revocation cannot be checked: ${why}.`;
}

/**
 * Whether one of our own authorities signed the certificate itself, and all of it is understood.
 */
function issuedDirectly(
  certificate: X509Certificate,
  { criticalExtensions }: CertificateFields,
  authorities: readonly X509Certificate[],
  now: Date,
): boolean {
  const eligible = authorities.filter(
    (authority) => authority.ca && validityAt(authority, now) === 'valid',
  );
  return (
    issuerOf(certificate, eligible) !== undefined &&
    criticalExtensions.every((id) => knownExtensions.has(id))
  );
}

/** A client signs the handshake; key encipherment is asked for as libvirt does. */
function lackingKeyUsage(
  certificate: X509Certificate,
  { keyUsage }: CertificateFields,
): string | null {
  if (keyUsage === null) return null;
  if (!keyUsage.digitalSignature) return 'digital signature';
  // Only RSA keys can encipher; RFC 8813 forbids the bit for elliptic curves.
  const rsa = certificate.publicKey.asymmetricKeyType === 'rsa';
  return rsa && keyUsage.critical && !keyUsage.keyEncipherment ? 'key encipherment' : null;
}
