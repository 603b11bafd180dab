import { execFileSync, spawnSync } from 'node:child_process';
import { X509Certificate, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { derTag } from '../../lib/auth/der.js';
import { distinguishedName } from '../../lib/auth/distinguished-name.js';
import { certificatesLacking } from '../peers/certificates.js';

const lacking = certificatesLacking('virt-pki-query-dn', 'openssl');

/** One attribute: object identifier, tag of the value, content of the value. */
type Attribute = readonly [id: string, tag: number, value: string | Buffer];

function element(tag: number, ...content: readonly Buffer[]): Buffer {
  const bytes = Buffer.concat(content);
  const { length } = bytes;
  const size = Buffer.from([length >> 8, length & 0xff]);
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, ...size];
  return Buffer.concat([Buffer.from([tag, ...head]), bytes]);
}

function identifier(id: string): Buffer {
  const [first = 0, second = 0, ...rest] = id.split('.').map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      digits.unshift((left & 0x7f) | 0x80);
    }
    return digits;
  });
  return element(derTag.objectIdentifier, Buffer.from(bytes));
}

function encodedName(relativeNames: readonly (readonly Attribute[])[]): Buffer {
  const sets = relativeNames.map((attributes) =>
    element(
      derTag.set,
      ...attributes.map(([id, tag, value]) =>
        element(derTag.sequence, identifier(id), element(tag, Buffer.from(value as string))),
      ),
    ),
  );
  return element(derTag.sequence, ...sets);
}

/** A certificate with that subject; nothing else of it matters. */
function certificateOf(key: KeyObject, publicKey: Buffer, subject: Buffer): Buffer {
  const algorithm = element(derTag.sequence, identifier('1.2.840.10045.4.3.2'));
  const time = (text: string): Buffer => element(derTag.utcTime, Buffer.from(text));
  const body = element(
    derTag.sequence,
    element(0xa0, element(derTag.integer, Buffer.from([2]))),
    element(derTag.integer, Buffer.from([7])),
    algorithm,
    encodedName([[['2.5.4.3', derTag.utf8String, 'issuer']]]),
    element(derTag.sequence, time('250101000000Z'), time('400101000000Z')),
    subject,
    publicKey,
  );
  const signature = sign('sha256', body, key);
  return element(
    derTag.sequence,
    body,
    algorithm,
    element(derTag.bitString, Buffer.from([0]), signature),
  );
}

const [cn, o, c, email, dc, uid] = [
  '2.5.4.3',
  '2.5.4.10',
  '2.5.4.6',
  '1.2.840.113549.1.9.1',
  '0.9.2342.19200300.100.1.25',
  '0.9.2342.19200300.100.1.1',
];
const { utf8String, printableString, teletexString, universalString, bmpString, ia5String } =
  derTag;
const utf16 = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16();

const namedAttributes = [
  ...[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 20, 41, 42, 43, 44, 46, 65].map(
    (arc) => `2.5.4.${arc}`,
  ),
  uid,
  dc,
  email,
  '1.2.840.113556.1.4.656',
  ...[1, 2, 3].map((arc) => `1.3.6.1.4.1.311.60.2.1.${arc}`),
  '1.3.6.1.5.5.7.8.5',
  ...[2, 3, 4, 5].map((arc) => `1.3.6.1.5.5.7.9.${arc}`),
  ...['3.131.1.1', '100.1', '100.3', '100.5'].map((tail) => `1.2.643.${tail}`),
];
const textTags = [
  ...[utf8String, printableString, teletexString, universalString, bmpString, ia5String],
  derTag.numericString,
  0x1a, // VisibleString
];

const oddNames: Record<string, readonly (readonly Attribute[])[]> = {
  'a usual name': [
    [[c, printableString, 'GB']],
    [[o, utf8String, 'Red Hat']],
    [[cn, utf8String, 'client.example']],
  ],
  'several values in one relative name': [
    [
      [cn, utf8String, 'one'],
      [uid, utf8String, 'two'],
      [email, ia5String, 'three@example.org'],
    ],
    [[o, utf8String, 'after']],
  ],
  'several common names': [[[cn, utf8String, 'b']], [[cn, utf8String, 'a']]],
  'UTF-8': [[[cn, utf8String, 'Zoë Łódź 東京 😀']], [[o, utf8String, 'Ćevapi, d.o.o.']]],
  'bytes that are not UTF-8': [[[cn, utf8String, Buffer.from('41ff42c3', 'hex')]]],
  'every special character': [[[cn, utf8String, ',+"\\<>;=#/ *?']]],
  'spaces at both ends': [[[cn, utf8String, '  two  ']], [[o, utf8String, ' ']]],
  'a number sign first and later': [[[cn, utf8String, '#a#b']], [[o, utf8String, '#']]],
  'control characters': [[[cn, utf8String, 'a\tb\nc\x7f']]],
  'a zero character': [[[cn, utf8String, 'good\0evil']], [[email, ia5String, 'a\0b']]],
  'BMPString text': [[[cn, bmpString, utf16('Zoë 😀, "x"')]]],
  'BMPString with a zero at its end': [[[cn, bmpString, utf16('ab\0')]]],
  'BMPString with a zero inside': [[[cn, bmpString, utf16('a\0b')]]],
  'BMPString of odd length': [[[cn, bmpString, Buffer.from('00410042ff', 'hex')]]],
  'BMPString with half a surrogate pair': [[[cn, bmpString, Buffer.from('d8000041', 'hex')]]],
  'BMPString of one zero': [[[cn, bmpString, Buffer.from('0000', 'hex')]]],
  'BMPString of one byte': [[[cn, bmpString, Buffer.from('41', 'hex')]]],
  'BMPString with a byte order mark': [[[cn, bmpString, Buffer.from('feff0041', 'hex')]]],
  'TeletexString beyond ASCII': [[[cn, teletexString, Buffer.from('e94141', 'hex')]]],
  'TeletexString with a line break': [[[cn, teletexString, 'a\nb']]],
  UniversalString: [[[cn, universalString, Buffer.from('00000041', 'hex')]]],
  'country as UTF8String': [[[c, utf8String, 'GB']]],
  'mail address as UTF8String': [[[email, utf8String, 'a@b']]],
  'domain component beyond ASCII': [[[dc, ia5String, Buffer.from('e9', 'hex')]]],
  'empty values': [[['1.2.3', utf8String, '']], [[c, printableString, '']], [[dc, ia5String, '']]],
  'an empty value of the wrong kind': [[[c, utf8String, '']]],
  'an unknown attribute': [[['1.2.3.4.5', utf8String, 'text']], [['2.5.4.999', 0x02, '\x07']]],
  'a nested unknown value': [[['1.3.9', derTag.sequence, element(0x04, Buffer.from('x'))]]],
  'identifiers with large arcs': [
    [['2.39.1', utf8String, 'a']],
    [['1.3.6.1.4.1.4294967295.300', utf8String, 'b']],
  ],
  'a long value': [[[cn, utf8String, 'x'.repeat(700)]]],
};

describe('distinguishedName', () => {
  let directory: string;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const encodedKey = publicKey.export({ type: 'spki', format: 'der' });
  const make = (relativeNames: readonly (readonly Attribute[])[]): Buffer =>
    certificateOf(privateKey, encodedKey, encodedName(relativeNames));

  /** What virt-pki-query-dn prints, null if it refuses. */
  function judged(pemFile: string): string | null {
    const { status, stdout } = spawnSync('virt-pki-query-dn', [pemFile]);
    return status === 0 ? stdout.toString('utf8').replace(/\n$/, '') : null;
  }

  function judgedDer(certificate: Buffer): string | null {
    const file = join(directory, 'judged.pem');
    const base64 = certificate.toString('base64').replace(/.{64}/g, '$&\n');
    writeFileSync(file, `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`);
    return judged(file);
  }

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'dn-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('keeps the order of the certificate', () => {
    expect(distinguishedName(make(oddNames['a usual name']!))).to.equal(
      'C=GB,O=Red Hat,CN=client.example',
    );
  });

  describe(`as virt-pki-query-dn prints it${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
    before(function () {
      if (lacking !== undefined) this.skip();
    });

    for (const [title, relativeNames] of Object.entries(oddNames)) {
      it(title, () => {
        const certificate = make(relativeNames);
        expect(distinguishedName(certificate)).to.equal(judgedDer(certificate));
      });
    }

    it('every attribute with every kind of text', () => {
      for (const id of [...namedAttributes, '1.2.840.113549.1.9.2', '2.5.4.45']) {
        const certificate = make(textTags.map((tag) => [[id, tag, '1234']]));
        expect(distinguishedName(certificate), id).to.equal(judgedDer(certificate));
      }
    });

    it('random names', () => {
      const alphabet = [' ', '#', ',', '+', '\\', '"', '=', 'a', 'é', '東', '\0', '\n', ';', '😀'];
      const tags = [utf8String, bmpString, teletexString];
      let seed = 12345;
      const random = (below: number): number => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return Math.floor((seed / 2147483648) * below);
      };
      for (let round = 0; round < 60; round += 1) {
        const names = Array.from({ length: 1 + random(3) }, () =>
          Array.from({ length: 1 + random(2) }, (): Attribute => {
            const length = 1 + random(5);
            const text = Array.from({ length }, () => alphabet[random(alphabet.length)]).join('');
            const tag = tags[random(tags.length)]!;
            return [[cn, o, uid][random(3)]!, tag, tag === bmpString ? utf16(text) : text];
          }),
        );
        const certificate = make(names);
        expect(distinguishedName(certificate), JSON.stringify(names)).to.equal(
          judgedDer(certificate),
        );
      }
    });

    it('certificates of certtool', () => {
      const templates = [
        'country = GB\nstate = London\nlocality = Here\norganization = "Red Hat"\ncn = "a b"\nuid = u',
        'dn = "CN=first,O=Two\\, Three,C=GR"',
        'dn = "CN=Zoë,O=Ab"',
        'cn = one\ncn = two\ndc = "example"\ndc = "org"\npkcs9_email = "a@b.org"',
        'dn_oid = "2.5.4.12 Dr."\ncn = oid',
      ];
      const key = join(directory, 'key.pem');
      const templateFile = join(directory, 'template');
      const file = join(directory, 'certtool.pem');
      writeFileSync(key, privateKey.export({ type: 'sec1', format: 'pem' }));
      for (const template of templates) {
        writeFileSync(templateFile, `${template}\nexpiration_days = 2\n`);
        execFileSync(
          'certtool',
          ['--generate-self-signed', '--load-privkey', key, '--template', templateFile].concat([
            '--outfile',
            file,
          ]),
          { stdio: 'ignore' },
        );
        const { raw } = new X509Certificate(readFileSync(file));
        expect(distinguishedName(raw), template).to.equal(judged(file)).and.to.be.a('string');
      }
    });

    it('certificates of openssl', () => {
      const key = join(directory, 'key.pem');
      const file = join(directory, 'openssl.pem');
      writeFileSync(key, privateKey.export({ type: 'sec1', format: 'pem' }));
      const subjects = [
        '/C=DE/O=Füße & Söhne/CN=client+emailAddress=a@b.org',
        '/DC=org/DC=example/UID=me/CN=\\#x \\+ y',
        '/SN=Sur/GN=Given/title=Dr/initials=X/serialNumber=12/street=Way 1/postalCode=9/CN=q',
        '/CN=a\\/b,c;d',
      ];
      for (const subject of subjects) {
        execFileSync(
          'openssl',
          ['req', '-x509', '-new', '-key', key, '-utf8', '-multivalue-rdn'].concat([
            '-subj',
            subject,
            '-out',
            file,
          ]),
          { stdio: 'ignore' },
        );
        const { raw } = new X509Certificate(readFileSync(file));
        expect(distinguishedName(raw), subject).to.equal(judged(file)).and.to.be.a('string');
      }
    });

    const refusedNames: Record<string, readonly (readonly Attribute[])[]> = {
      'no name at all': [],
      'a relative name without a value': [[]],
      'an empty common name': [[[o, utf8String, 'x']], [[cn, utf8String, '']]],
      'an object identifier of 132 characters': [
        [[`1.3.${Array<string>(22).fill('12345').join('.')}`, utf8String, 'x']],
      ],
    };
    for (const [title, relativeNames] of Object.entries(refusedNames)) {
      it(`refused: ${title}`, () => {
        const certificate = make(relativeNames);
        expect(judgedDer(certificate)).to.equal(null);
        expect(() => distinguishedName(certificate))
          .to.throw()
          .with.property('code', 'DER');
      });
    }
  });

  it('refuses every truncated certificate with a DerError', () => {
    const certificate = make(oddNames['several values in one relative name']!);
    // The subject ends before the public key does, so the last bytes are not looked at.
    for (let length = 0; length < certificate.length; length += 1) {
      expect(() => distinguishedName(certificate.subarray(0, length)), String(length))
        .to.throw()
        .with.property('code', 'DER');
    }
  });

  it('survives any one flipped byte', () => {
    const certificate = make(oddNames['several values in one relative name']!);
    for (let at = 0; at < certificate.length; at += 1) {
      for (const change of [0x01, 0x80, 0xff]) {
        const changed = Buffer.from(certificate);
        changed[at]! ^= change;
        try {
          distinguishedName(changed);
        } catch (error) {
          expect(error, `byte ${at}`).to.have.property('code', 'DER');
        }
      }
    }
  });
});
