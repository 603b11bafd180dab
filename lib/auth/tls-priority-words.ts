import {
  cipherNames,
  groupNames,
  keyExchangeNames,
  macNames,
  signatureNames,
  type Algorithms,
} from './tls-algorithms.js';

/** A keyword's algorithms, best first. No versions: the keyword leaves those alone. */
export type PriorityLevel = Algorithms<readonly string[]>;

/** What stands after + or -. `clears`: taking it away empties the whole set, as in GnuTLS. */
export interface PriorityChoice {
  readonly kind: keyof Algorithms;
  readonly members: readonly string[];
  readonly clears?: true;
}

const recentVersions = ['TLSv1.3', 'TLSv1.2'];
const everyVersion = [...recentVersions, 'TLSv1.1', 'TLSv1'];

const normalCiphers = [
  ...['AES-256-GCM', 'CHACHA20-POLY1305', 'AES-256-CCM', 'AES-256-CBC'],
  ...['AES-128-GCM', 'AES-128-CCM', 'AES-128-CBC'],
];
const performanceCiphers = [
  ...['AES-128-GCM', 'AES-256-GCM', 'CHACHA20-POLY1305', 'AES-128-CCM', 'AES-256-CCM'],
  ...['AES-128-CBC', 'AES-256-CBC'],
];
const ciphersOf256Bits = ['AES-256-GCM', 'CHACHA20-POLY1305', 'AES-256-CBC', 'AES-256-CCM'];

const everySignature = Object.keys(signatureNames);
const currentSignatures = everySignature.filter((name) => !name.endsWith('SHA1'));
const signaturesOver = (pattern: RegExp): string[] =>
  everySignature.filter((name) => pattern.test(name));

const everyGroup = Object.keys(groupNames);
const finiteFields = everyGroup.filter((name) => name.startsWith('FFDHE'));
const curves = everyGroup.filter((name) => !finiteFields.includes(name));

const normal: PriorityLevel = {
  versions: [],
  ciphers: normalCiphers,
  macs: ['SHA1', 'AEAD'],
  keyExchanges: keyExchangeNames,
  groups: everyGroup,
  signatures: currentSignatures,
};
const secure128: PriorityLevel = {
  ...normal,
  ciphers: [...ciphersOf256Bits, 'AES-128-GCM', 'AES-128-CBC', 'AES-128-CCM'],
};
const secure192: PriorityLevel = {
  ...normal,
  ciphers: ciphersOf256Bits,
  macs: ['AEAD'],
  groups: ['SECP384R1', 'SECP521R1', 'FFDHE8192'],
  signatures: signaturesOver(/SHA384$|SHA512$|ED448$/),
};
const suiteB192: PriorityLevel = {
  versions: ['TLSv1.2'],
  ciphers: ['AES-256-GCM'],
  macs: ['AEAD'],
  keyExchanges: ['ECDHE-ECDSA'],
  groups: ['SECP384R1'],
  signatures: signaturesOver(/^ECDSA.*SHA384$/),
};

/** What a priority string starts from, unless its first word is NONE. */
export const initialAlgorithms: PriorityLevel = {
  versions: recentVersions,
  ciphers: [],
  macs: [],
  keyExchanges: [],
  groups: everyGroup,
  signatures: currentSignatures,
};

/** GnuTLS's keywords (GnuTLS manual, "Priority strings"; `gnutls-cli --list --priority`). */
export const priorityLevels: ReadonlyMap<string, PriorityLevel> = new Map([
  ['NORMAL', normal],
  ['LEGACY', { ...normal, versions: everyVersion }],
  ['PFS', { ...normal, keyExchanges: keyExchangeNames.filter((name) => name !== 'RSA') }],
  [
    'PERFORMANCE',
    {
      ...normal,
      ciphers: performanceCiphers,
      keyExchanges: ['RSA', 'ECDHE-ECDSA', 'ECDHE-RSA', 'DHE-RSA'],
    },
  ],
  ['SECURE', secure128],
  ['SECURE128', secure128],
  ['SECURE192', secure192],
  ['SECURE256', secure192],
  [
    'SUITEB128',
    {
      ...suiteB192,
      ciphers: ['AES-256-GCM', 'AES-128-GCM'],
      groups: ['SECP256R1', 'SECP384R1'],
      signatures: signaturesOver(/^ECDSA.*SHA(256|384)$/),
    },
  ],
  ['SUITEB192', suiteB192],
]);

function each(
  kind: keyof Algorithms,
  prefix: string,
  names: readonly string[],
): [string, PriorityChoice][] {
  return names.map((name) => [`${prefix}${name}`, { kind, members: [name] }]);
}

/** The algorithms and groups of them that can be added and taken away, by GnuTLS's names. */
export const priorityChoices: ReadonlyMap<string, PriorityChoice> = new Map([
  ...each('ciphers', '', cipherNames),
  ...each('macs', '', macNames),
  ...each('keyExchanges', '', keyExchangeNames),
  ...each('groups', 'GROUP-', everyGroup),
  ...each('groups', 'CURVE-', curves),
  ...each('signatures', 'SIGN-', everySignature),
  ['VERS-TLS1.0', { kind: 'versions', members: ['TLSv1'] }],
  ['VERS-TLS1.1', { kind: 'versions', members: ['TLSv1.1'] }],
  ['VERS-TLS1.2', { kind: 'versions', members: ['TLSv1.2'] }],
  ['VERS-TLS1.3', { kind: 'versions', members: ['TLSv1.3'] }],
  ['VERS-TLS-ALL', { kind: 'versions', members: everyVersion }],
  ['VERS-ALL', { kind: 'versions', members: everyVersion }],
  ['CIPHER-ALL', { kind: 'ciphers', members: normalCiphers, clears: true }],
  ['MAC-ALL', { kind: 'macs', members: normal.macs, clears: true }],
  ['KX-ALL', { kind: 'keyExchanges', members: keyExchangeNames, clears: true }],
  ['SIGN-ALL', { kind: 'signatures', members: currentSignatures, clears: true }],
  ['GROUP-ALL', { kind: 'groups', members: everyGroup, clears: true }],
  ['CURVE-ALL', { kind: 'groups', members: everyGroup, clears: true }],
  ['GROUP-EC-ALL', { kind: 'groups', members: curves }],
  ['GROUP-DH-ALL', { kind: 'groups', members: finiteFields }],
]);

/** GnuTLS's algorithms that node's OpenSSL lacks or TLS with certificates never uses. */
export const absentAlgorithms = new RegExp(
  `^(${[
    '3DES-CBC|DES-CBC|ARCFOUR-(128|40)|RC2-40|NULL|AES-192-(CBC|GCM)|IDEA-CBC',
    'CAMELLIA-(192-CBC|128-GCM|256-GCM)|(ESTREAM-)?SALSA20-256',
    'MD5|SHA224|SHA512|RMD160|RIPEMD160|UMAC-(96|128)',
    'DHE-DSS|((RSA|DHE|ECDHE)-)?PSK|SRP(-DSS|-RSA)?|ANON-(EC)?DH|RSA-EXPORT',
    'VERS-SSL3\\.0|CTYPE-(CLI-|SRV-)?(RAWPK|RAW PUBLIC KEY)',
    '(GROUP|CURVE)-(SECP(192|224)R1|GC(256|512)[A-D]|.*MLKEM.*)',
    'SIGN-(DSA-.*|.*-(SHA224|SHA3-\\d+|MD5|MD2|RMD160)|RSA-RAW|ML-?DSA-?\\d+)',
    '.*GOST.*',
  ].join('|')})$`,
);

/** Means nothing here, added or taken away: DTLS, compression (never), X.509 (always). */
export const meaninglessChoices = /^(VERS-DTLS.*|COMP-.*|CTYPE-(CLI-|SRV-)?(ALL|X\.?509|OPENPGP))$/;

/** Flags that change nothing: tickets, renegotiation, wildcards and SSL 3 are never used here. */
export const meaninglessFlags: ReadonlySet<string> = new Set([
  ...['COMPAT', 'DUMBFW', 'NO_TICKETS', 'NO_TICKETS_TLS12', 'NO_SESSION_HASH'],
  ...['STATELESS_COMPRESSION', 'SSL3_RECORD_VERSION', 'LATEST_RECORD_VERSION', 'NEW_PADDING'],
  ...['VERIFY_ALLOW_X509_V1_CA_CRT', 'UNSAFE_RENEGOTIATION', 'SAFE_RENEGOTIATION'],
  ...['PARTIAL_RENEGOTIATION', 'DISABLE_SAFE_RENEGOTIATION', 'FALLBACK_SCSV'],
  ...['DISABLE_WILDCARDS', 'ALLOW_SMALL_RECORDS', 'DISABLE_TLS13_COMPAT_MODE'],
]);

/** GnuTLS's profiles as OpenSSL's security levels (SSL_CTX_set_security_level(3)), bits alike. */
export const profileSecurityLevels: ReadonlyMap<string, number> = new Map([
  ['PROFILE_VERY_WEAK', 0],
  ['PROFILE_LOW', 1],
  ['PROFILE_LEGACY', 1],
  ['PROFILE_MEDIUM', 2],
  ['PROFILE_HIGH', 3],
  ['PROFILE_SUITEB128', 3],
  ['PROFILE_ULTRA', 4],
  ['PROFILE_SUITEB192', 4],
  ['PROFILE_FUTURE', 5],
]);
