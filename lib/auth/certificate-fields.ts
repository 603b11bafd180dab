import type { X509Certificate } from 'node:crypto';
import { DerReader, derTag, objectIdentifierText, type DerElement } from './der.js';

/** The key usage extension (RFC 5280, 4.2.1.3). */
export interface KeyUsage {
  readonly critical: boolean;
  readonly digitalSignature: boolean;
  readonly keyEncipherment: boolean;
  readonly keyCertSign: boolean;
}

/** What node's X509Certificate does not tell about a certificate. */
export interface CertificateFields {
  /** The serial number's content bytes in hexadecimal, as revocation lists hold it too. */
  readonly serial: string;
  /** The encoded names. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** Whether the basic constraints show a CA. */
  readonly authority: boolean;
  /** null when the certificate does not say what its key may be used for. */
  readonly keyUsage: KeyUsage | null;
  /** The object identifiers of the extensions that may not be ignored. */
  readonly criticalExtensions: readonly string[];
}

const extensionsTag = 0xa3;
const versionTag = 0xa0;
const uniqueIdTags = [0x81, 0x82] as const;
const keyUsageId = '2.5.29.15';
const basicConstraintsId = '2.5.29.19';

/** Reads the fields of a DER certificate (RFC 5280, 4.1). Throws DerError. */
export function certificateFields(certificate: Buffer): CertificateFields {
  const body = new DerReader(certificate).enter(derTag.sequence).enter(derTag.sequence);
  body.optional(versionTag);
  const serial = body.expect(derTag.integer).content.toString('hex');
  body.expect(derTag.sequence); // signature algorithm
  const issuer = body.expect(derTag.sequence).encoded;
  body.expect(derTag.sequence); // validity
  const subject = body.expect(derTag.sequence).encoded;
  body.expect(derTag.sequence); // public key
  for (const tag of uniqueIdTags) body.optional(tag);
  const extensions = body.optional(extensionsTag);
  return { serial, issuer, subject, ...readExtensions(extensions?.content) };
}

function readExtensions(
  content: Buffer | undefined,
): Pick<CertificateFields, 'authority' | 'keyUsage' | 'criticalExtensions'> {
  const criticalExtensions: string[] = [];
  let authority = false;
  let keyUsage: KeyUsage | null = null;
  if (content === undefined) return { authority, keyUsage, criticalExtensions };
  const extensions = new DerReader(content).enter(derTag.sequence);
  while (!extensions.done) {
    const extension = extensions.enter(derTag.sequence);
    const id = objectIdentifierText(extension.expect(derTag.objectIdentifier).content);
    const critical = isTrue(extension.optional(derTag.boolean));
    const value = new DerReader(extension.expect(derTag.octetString).content);
    if (critical) criticalExtensions.push(id);
    if (id === keyUsageId) keyUsage = keyUsageBits(critical, value);
    if (id === basicConstraintsId) {
      authority = isTrue(value.enter(derTag.sequence).optional(derTag.boolean));
    }
  }
  return { authority, keyUsage, criticalExtensions };
}

/** Absent means the default, which is false. */
function isTrue(boolean: DerElement | null): boolean {
  return (boolean?.content[0] ?? 0) !== 0;
}

function keyUsageBits(critical: boolean, value: DerReader): KeyUsage {
  // The first byte counts the unused bits at the end; bit 0 is the highest of the second.
  const bits = value.expect(derTag.bitString).content[1] ?? 0;
  return {
    critical,
    digitalSignature: (bits & 0x80) !== 0,
    keyEncipherment: (bits & 0x20) !== 0,
    keyCertSign: (bits & 0x04) !== 0,
  };
}

/** Purposes of the extended key usage extension, as X509Certificate.keyUsage lists them. */
export const keyPurpose = {
  serverAuthentication: '1.3.6.1.5.5.7.3.1',
  clientAuthentication: '1.3.6.1.5.5.7.3.2',
  any: '2.5.29.37.0',
} as const;

/** Whether a certificate may be used for a purpose: one that names no purposes may for all. */
export function servesPurpose(certificate: X509Certificate, purpose: string): boolean {
  // Node leaves the array out, against its types, when there is no such extension.
  const purposes = certificate.keyUsage as readonly string[] | undefined;
  return purposes === undefined || purposes.some((id) => id === purpose || id === keyPurpose.any);
}

/** Whether the key of `issuer` signed `certificate`, under the name it gives its issuer. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** The first of `candidates` that issued `certificate`. */
export function issuerOf(
  certificate: X509Certificate,
  candidates: readonly X509Certificate[],
): X509Certificate | undefined {
  return candidates.find((candidate) => isIssuedBy(certificate, candidate));
}

/** Where `now` is in a certificate's time. */
export function validityAt(
  certificate: X509Certificate,
  now: Date,
): 'valid' | 'expired' | 'not-yet-valid' {
  // Written so that a date which cannot be read, and compares as nothing, is never valid.
  if (!(new Date(certificate.validTo) >= now)) return 'expired';
  return new Date(certificate.validFrom) <= now ? 'valid' : 'not-yet-valid';
}
