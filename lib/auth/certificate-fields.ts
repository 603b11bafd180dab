import { DerReader, derTag, objectIdentifierText } from './der.js';

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
  /** null when the certificate does not say what its key may be used for. */
  readonly keyUsage: KeyUsage | null;
}

const extensionsTag = 0xa3;
const versionTag = 0xa0;
const uniqueIdTags = [0x81, 0x82] as const;
const keyUsageId = '2.5.29.15';

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
  return {
    serial,
    issuer,
    subject,
    keyUsage: extensions === null ? null : readKeyUsage(new DerReader(extensions.content)),
  };
}

function readKeyUsage(reader: DerReader): KeyUsage | null {
  const extensions = reader.enter(derTag.sequence);
  while (!extensions.done) {
    const extension = extensions.enter(derTag.sequence);
    const id = objectIdentifierText(extension.expect(derTag.objectIdentifier).content);
    const critical = extension.optional(derTag.boolean)?.content[0] ?? 0;
    const value = extension.expect(derTag.octetString).content;
    if (id === keyUsageId) return keyUsageBits(critical !== 0, value);
  }
  return null;
}

function keyUsageBits(critical: boolean, value: Buffer): KeyUsage {
  // The first byte counts the unused bits at the end; bit 0 is the highest of the second.
  const bits = new DerReader(value).expect(derTag.bitString).content[1] ?? 0;
  return {
    critical,
    digitalSignature: (bits & 0x80) !== 0,
    keyEncipherment: (bits & 0x20) !== 0,
    keyCertSign: (bits & 0x04) !== 0,
  };
}
