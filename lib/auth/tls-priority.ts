import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { SecureContextOptions } from 'node:tls';
import { parse } from 'ini';
import {
  cipherNames,
  classicSuiteNames,
  groupNames,
  keyExchangeNames,
  macNames,
  modernSuiteNames,
  signatureNames,
  tlsVersions,
  type Algorithms,
  type TlsVersion,
} from './tls-algorithms.js';

/** A tls_priority that has no counterpart in OpenSSL. `token` is the part of it that has none. */
export class TlsPriorityError extends Error {
  override readonly name = 'TlsPriorityError';
  readonly code = 'TLS_PRIORITY';
  readonly token: string;

  constructor(token: string, reason: string) {
    super(`tls_priority: "${token}" ${reason}`);
    this.token = token;
  }
}

/** What a priority string means for node:tls; to be spread into a secure context's options. */
export type TlsOptions = Pick<
  SecureContextOptions,
  'ciphers' | 'dhparam' | 'ecdhCurve' | 'sigalgs' | 'secureOptions' | 'honorCipherOrder'
> & { readonly minVersion: TlsVersion; readonly maxVersion: TlsVersion };

const recentVersions = ['TLSv1.3', 'TLSv1.2'];
const oldVersions = ['TLSv1.1', 'TLSv1'];
const normalCiphers = [
  ...['AES-256-GCM', 'CHACHA20-POLY1305', 'AES-256-CCM', 'AES-256-CBC'],
  ...['AES-128-GCM', 'AES-128-CCM', 'AES-128-CBC'],
];
const performanceCiphers = [
  ...['AES-128-GCM', 'AES-256-GCM', 'CHACHA20-POLY1305', 'AES-128-CCM', 'AES-256-CCM'],
  ...['AES-128-CBC', 'AES-256-CBC'],
];
const ciphersOf256Bits = ['AES-256-GCM', 'CHACHA20-POLY1305', 'AES-256-CBC', 'AES-256-CCM'];
const allSignatures = Object.keys(signatureNames);
const signaturesOver = (...digests: string[]): string[] =>
  allSignatures.filter((name) => digests.some((digest) => name.endsWith(digest)));
const strongSignatures = allSignatures.filter((name) => !name.endsWith('SHA1'));
const curves = Object.keys(groupNames).filter((name) => !name.startsWith('FFDHE'));
const finiteFields = Object.keys(groupNames).filter((name) => name.startsWith('FFDHE'));

const normal: Algorithms<readonly string[]> = {
  versions: recentVersions,
  ciphers: normalCiphers,
  macs: ['SHA1', 'AEAD'],
  keyExchanges: keyExchangeNames,
  groups: [...curves, ...finiteFields],
  signatures: strongSignatures,
};
const secure192: Algorithms<readonly string[]> = {
  ...normal,
  ciphers: ciphersOf256Bits,
  macs: ['AEAD'],
  groups: ['SECP384R1', 'SECP521R1', 'FFDHE8192'],
  signatures: signaturesOver('SHA384', 'SHA512', 'ED448'),
};
const secure128: Algorithms<readonly string[]> = {
  ...normal,
  ciphers: [...ciphersOf256Bits, 'AES-128-GCM', 'AES-128-CBC', 'AES-128-CCM'],
};
const suiteB: Algorithms<readonly string[]> = {
  versions: ['TLSv1.2'],
  ciphers: ['AES-256-GCM'],
  macs: ['AEAD'],
  keyExchanges: ['ECDHE-ECDSA'],
  groups: ['SECP384R1'],
  signatures: ['ECDSA-SHA384', 'ECDSA-SECP384R1-SHA384'],
};

/**
 * GnuTLS's keywords. Unlike GnuTLS's own, NORMAL and its relatives begin at TLS 1.2: the versions
 * before it must be asked for, with LEGACY or +VERS-.
 */
const levels: Readonly<Record<string, Algorithms<readonly string[]>>> = {
  NORMAL: normal,
  LEGACY: { ...normal, versions: [...recentVersions, ...oldVersions] },
  PFS: { ...normal, keyExchanges: ['ECDHE-ECDSA', 'ECDHE-RSA', 'DHE-RSA'] },
  PERFORMANCE: {
    ...normal,
    ciphers: performanceCiphers,
    keyExchanges: ['RSA', 'ECDHE-ECDSA', 'ECDHE-RSA', 'DHE-RSA'],
  },
  SECURE: secure128,
  SECURE128: secure128,
  SECURE192: secure192,
  SECURE256: secure192,
  SUITEB128: {
    ...suiteB,
    ciphers: ['AES-256-GCM', 'AES-128-GCM'],
    groups: ['SECP256R1', 'SECP384R1'],
    signatures: signaturesOver('ECDSA-SHA256', 'SECP256R1-SHA256', 'ECDSA-SHA384', 'R1-SHA384'),
  },
  SUITEB192: suiteB,
};

/** What stands after + or -. `clears`: taking it away empties the whole set, as in GnuTLS. */
interface Choice {
  readonly kind: keyof Algorithms;
  readonly members: readonly string[];
  readonly clears?: true;
}

const choices = new Map<string, Choice>();
function choose(kind: keyof Algorithms, prefixes: readonly string[], names: readonly string[]) {
  for (const prefix of prefixes) {
    for (const name of names) choices.set(`${prefix}${name}`, { kind, members: [name] });
  }
}
choose('ciphers', [''], cipherNames);
choose('macs', [''], macNames);
choose('keyExchanges', [''], keyExchangeNames);
choose('groups', ['GROUP-', 'CURVE-'], Object.keys(groupNames));
choose('signatures', ['SIGN-'], allSignatures);
const versionNames = { 'VERS-TLS1.0': 'TLSv1', 'VERS-TLS1.1': 'TLSv1.1' } as const;
const newerVersionNames = { 'VERS-TLS1.2': 'TLSv1.2', 'VERS-TLS1.3': 'TLSv1.3' } as const;
for (const [name, version] of Object.entries({ ...versionNames, ...newerVersionNames })) {
  choices.set(name, { kind: 'versions', members: [version] });
}
const everyVersion = [...recentVersions, ...oldVersions];
choices.set('VERS-ALL', { kind: 'versions', members: everyVersion, clears: true });
choices.set('VERS-TLS-ALL', { kind: 'versions', members: everyVersion });
choices.set('CIPHER-ALL', { kind: 'ciphers', members: normalCiphers, clears: true });
choices.set('MAC-ALL', { kind: 'macs', members: normal.macs, clears: true });
choices.set('KX-ALL', { kind: 'keyExchanges', members: keyExchangeNames, clears: true });
choices.set('SIGN-ALL', { kind: 'signatures', members: strongSignatures, clears: true });
choices.set('GROUP-ALL', { kind: 'groups', members: normal.groups, clears: true });
choices.set('CURVE-ALL', { kind: 'groups', members: normal.groups, clears: true });
choices.set('GROUP-EC-ALL', { kind: 'groups', members: curves });
choices.set('GROUP-DH-ALL', { kind: 'groups', members: finiteFields });

/** GnuTLS's algorithms that node's OpenSSL lacks or TLS with certificates never uses. */
const absent = new RegExp(
  `^(${[
    '3DES-CBC|DES-CBC|ARCFOUR-(128|40)|RC2-40|NULL|AES-192-(CBC|GCM)',
    'CAMELLIA-(192-CBC|128-GCM|256-GCM)|(ESTREAM-)?SALSA20-256|IDEA-CBC',
    'MD5|SHA224|SHA512|RMD160|RIPEMD160|UMAC-(96|128)',
    'DHE-DSS|((RSA|DHE|ECDHE)-)?PSK|SRP(-DSS|-RSA)?|ANON-(EC)?DH|RSA-EXPORT',
    'VERS-SSL3\\.0|CTYPE-(CLI-|SRV-)?(RAWPK|RAW PUBLIC KEY)',
    '(GROUP|CURVE)-(SECP(192|224)R1|GC(256|512)[A-D]|.*MLKEM.*)',
    'SIGN-(DSA-.*|.*-(SHA224|SHA3-\\d+|MD5|MD2|RMD160)|RSA-RAW|MLDSA\\d+)',
    '.*GOST.*',
  ].join('|')})$`,
);

/** Means nothing here, whatever its sign: DTLS, compression (never done), X.509 (always). */
const meaningless = /^(VERS-DTLS.*|COMP-.*|CTYPE-(CLI-|SRV-)?(ALL|X\.?509|OPENPGP))$/;

/** Flags that change nothing: no tickets, no renegotiation, no wildcards and no SSL 3 here. */
const meaninglessFlags = new Set([
  ...['COMPAT', 'DUMBFW', 'NO_TICKETS', 'NO_TICKETS_TLS12', 'NO_SESSION_HASH'],
  ...['STATELESS_COMPRESSION', 'SSL3_RECORD_VERSION', 'LATEST_RECORD_VERSION', 'NEW_PADDING'],
  ...['VERIFY_ALLOW_X509_V1_CA_CRT', 'UNSAFE_RENEGOTIATION', 'SAFE_RENEGOTIATION'],
  ...['PARTIAL_RENEGOTIATION', 'DISABLE_SAFE_RENEGOTIATION', 'FALLBACK_SCSV'],
  ...['DISABLE_WILDCARDS', 'ALLOW_SMALL_RECORDS', 'DISABLE_TLS13_COMPAT_MODE'],
]);

/** GnuTLS's profiles as OpenSSL's security levels (SSL_CTX_set_security_level(3)), bits alike. */
const profiles: Readonly<Record<string, number>> = {
  PROFILE_VERY_WEAK: 0,
  PROFILE_LOW: 1,
  PROFILE_LEGACY: 1,
  PROFILE_MEDIUM: 2,
  PROFILE_HIGH: 3,
  PROFILE_SUITEB128: 3,
  PROFILE_ULTRA: 4,
  PROFILE_SUITEB192: 4,
  PROFILE_FUTURE: 5,
};

interface Flags {
  serverPrecedence: boolean;
  encryptThenMac: boolean;
  /** OpenSSL's security level, null for node's own. */
  securityLevel: number | null;
}

/**
 * Translates a GnuTLS priority string, the form of tls_priority (GnuTLS manual, "Priority strings").
 * Letters' case does not matter. `@NAME` is looked up in `systemWide`; an `@SYSTEM` that is not
 * defined there stands for NORMAL, and so does an unknown name before a keyword, as in
 * `@LIBVIRT,NORMAL`, for that keyword.
 *
 * TLS before 1.2 and SHA-1 signatures need OpenSSL's security level 0, which also admits certificates
 * with short keys and weak digests.
 *
 * Throws TlsPriorityError for what OpenSSL cannot do and for a string that leaves nothing to
 * negotiate; taking away what OpenSSL lacks anyway is fine.
 */
export function mapPriority(text: string, systemWide = systemPriorities): TlsOptions {
  const [first = '', ...rest] = resolve(text.trim(), systemWide).split(':');
  const tokens = [first, ...rest].map((token) => token.trim());
  const none = first.trim().toUpperCase() === 'NONE';
  const algorithms: Algorithms = {
    versions: new Set(none ? [] : normal.versions),
    ciphers: new Set(),
    macs: new Set(),
    keyExchanges: new Set(),
    groups: new Set(none ? [] : normal.groups),
    signatures: new Set(none ? [] : normal.signatures),
  };
  const flags: Flags = { serverPrecedence: false, encryptThenMac: true, securityLevel: null };
  let levelSeen = none;
  for (const token of none ? tokens.slice(1) : tokens) {
    const level = levels[token.replace(/^\+/, '').toUpperCase()];
    if (level !== undefined) {
      addLevel(algorithms, level, !levelSeen && !token.startsWith('+'));
      levelSeen = true;
    } else if (token.startsWith('%')) {
      setFlag(flags, token);
    } else {
      changeAlgorithms(algorithms, token);
    }
  }
  return toOptions(text, algorithms, flags);
}

/**
 * The priority strings this host's administrator has named, in GnuTLS's own file (GnuTLS manual,
 * "System-wide configuration"). Empty without the file. Where the file lists what is allowed instead
 * of naming a string, SYSTEM is left out.
 */
export function systemPriorities(file = '/etc/gnutls/config'): ReadonlyMap<string, string> {
  let sections: Record<string, unknown>;
  try {
    sections = parse(readFileSync(file, 'utf8'));
  } catch {
    return new Map();
  }
  const { global = {}, priorities = {} } = sections as Record<string, Record<string, unknown>>;
  const named = Object.entries({ ...sections, ...priorities }).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  const found = new Map(named);
  if (global['override-mode'] === 'allowlist') found.delete('SYSTEM');
  return found;
}

function resolve(text: string, systemWide: () => ReadonlyMap<string, string>): string {
  if (!text.startsWith('@')) return text;
  const [names = '', ...rest] = text.slice(1).split(':');
  const known = systemWide();
  for (const name of names.split(',').map((part) => part.trim())) {
    const level = name.toUpperCase() === 'SYSTEM' ? 'NORMAL' : name;
    const found = known.get(name) ?? (level.toUpperCase() in levels ? level : undefined);
    if (found !== undefined && !(level !== name && names.includes(','))) {
      return [found, ...rest].join(':');
    }
  }
  throw new TlsPriorityError(`@${names}`, 'names nothing that /etc/gnutls/config defines.');
}
