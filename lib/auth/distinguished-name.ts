import { certificateFields } from './certificate-fields.js';
import { DerError, DerReader, derTag, objectIdentifierText } from './der.js';

/** How GnuTLS reads an attribute's value: as a DirectoryString, or only with the one tag. */
type ValueSyntax = 'directory' | number;

const { printableString, ia5String, utf8String, numericString, bmpString } = derTag;

/** The attributes that GnuTLS 3.7 knows by name (gnutls_x509_dn_oid_name). */
const attributes: Readonly<Record<string, readonly [name: string, syntax: ValueSyntax]>> = {
  '2.5.4.3': ['CN', 'directory'],
  '2.5.4.4': ['surName', 'directory'],
  '2.5.4.5': ['serialNumber', printableString],
  '2.5.4.6': ['C', printableString],
  '2.5.4.7': ['L', 'directory'],
  '2.5.4.8': ['ST', 'directory'],
  '2.5.4.9': ['street', 'directory'],
  '2.5.4.10': ['O', 'directory'],
  '2.5.4.11': ['OU', 'directory'],
  '2.5.4.12': ['title', 'directory'],
  '2.5.4.13': ['description', 'directory'],
  '2.5.4.15': ['businessCategory', 'directory'],
  '2.5.4.17': ['postalCode', 'directory'],
  '2.5.4.20': ['telephoneNumber', printableString],
  '2.5.4.41': ['name', 'directory'],
  '2.5.4.42': ['givenName', 'directory'],
  '2.5.4.43': ['initials', 'directory'],
  '2.5.4.44': ['generationQualifier', 'directory'],
  '2.5.4.46': ['dnQualifier', printableString],
  '2.5.4.65': ['pseudonym', 'directory'],
  '0.9.2342.19200300.100.1.1': ['UID', 'directory'],
  '0.9.2342.19200300.100.1.25': ['DC', ia5String],
  '1.2.840.113549.1.9.1': ['EMAIL', ia5String],
  '1.2.840.113556.1.4.656': ['userPrincipalName', 'directory'],
  '1.3.6.1.4.1.311.60.2.1.1': ['jurisdictionOfIncorporationLocalityName', 'directory'],
  '1.3.6.1.4.1.311.60.2.1.2': ['jurisdictionOfIncorporationStateOrProvinceName', 'directory'],
  '1.3.6.1.4.1.311.60.2.1.3': ['jurisdictionOfIncorporationCountryName', printableString],
  '1.3.6.1.5.5.7.8.5': ['XmppAddr', utf8String],
  '1.3.6.1.5.5.7.9.2': ['placeOfBirth', 'directory'],
  '1.3.6.1.5.5.7.9.3': ['gender', printableString],
  '1.3.6.1.5.5.7.9.4': ['countryOfCitizenship', printableString],
  '1.3.6.1.5.5.7.9.5': ['countryOfResidence', printableString],
  '1.2.643.3.131.1.1': ['INN', numericString],
  '1.2.643.100.1': ['OGRN', numericString],
  '1.2.643.100.3': ['SNILS', numericString],
  '1.2.643.100.5': ['OGRNIP', numericString],
};

/**
 * The subject's distinguished name of a DER certificate, as `virt-pki-query-dn` prints it: relative
 * names in the order of the certificate, parted by ',', the values of one by '+', escaped as RFC
 * 4514 says. What is not text stands there in hexadecimal after '#'.
 *
 * Throws DerError for what is no certificate and, as virt-pki-query-dn does, for a subject without
 * any name and an empty value where text is due: such a client has no name to be known by.
 */
export function distinguishedName(certificate: Buffer): string {
  const subject = new DerReader(certificateFields(certificate).subject).enter(derTag.sequence);
  const names: string[] = [];
  while (!subject.done) {
    const relative = subject.enter(derTag.set);
    const values: string[] = [];
    do values.push(attributeText(relative.enter(derTag.sequence)));
    while (!relative.done);
    names.push(values.join('+'));
  }
  if (names.length === 0) throw new DerError(0, 'the subject has no name.');
  return names.join(',');
}

function attributeText(reader: DerReader): string {
  const id = objectIdentifierText(reader.expect(derTag.objectIdentifier).content);
  const { tag, content, encoded } = reader.next();
  const attribute = attributes[id];
  if (attribute === undefined) return `${id}=${hexadecimal(encoded)}`;
  const [name, syntax] = attribute;
  if (syntax === 'directory' && content.length === 0) throw new DerError(0, `${name} is empty.`);
  const text =
    syntax === 'directory' ? directoryText(tag, content) : plainText(tag, content, syntax);
  return `${name}=${text === null ? hexadecimal(encoded) : escaped(text)}`;
}

/** A DirectoryString (RFC 5280, 4.1.2.4); null if it is none. */
function directoryText(tag: number, content: Buffer): string | null {
  switch (tag) {
    case utf8String:
    case printableString:
      return withoutZero(content.toString('utf8'));
    case derTag.teletexString:
      return /^[\x20-\x7e]*$/.test(content.toString('latin1'))
        ? content.toString('latin1')
        : hexadecimal(content);
    case derTag.universalString:
      return hexadecimal(content);
    case bmpString:
      return bmpText(content);
    default:
      return null;
  }
}

function plainText(tag: number, content: Buffer, expected: number): string | null {
  return tag === expected && content.length > 0 ? withoutZero(content.toString('utf8')) : null;
}

function bmpText(content: Buffer): string | null {
  const zeroAtEnd = content.length > 2 && content.readUInt16BE(content.length - 2) === 0;
  const size = (content.length - (zeroAtEnd ? 2 : 0)) & ~1;
  const text = Buffer.from(content.subarray(0, size)).swap16().toString('utf16le');
  return /\p{Surrogate}/u.test(text) ? hexadecimal(content) : withoutZero(text);
}

/** A zero character would hide what follows from C, so such a value counts as no text. */
function withoutZero(text: string): string | null {
  return text.includes('\0') ? null : text;
}

function hexadecimal(bytes: Buffer): string {
  return `#${bytes.toString('hex')}`;
}

function escaped(text: string): string {
  return text.replace(/[,+"\\<>;]|^[# ]| $/g, '\\$&');
}
