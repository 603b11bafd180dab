/**
 * GnuTLS's names of what TLS negotiates, and OpenSSL's names for the same. Sources: `gnutls-cli
 * --list`, the GnuTLS manual's chapter "Priority strings", openssl-ciphers(1),
 * SSL_CTX_set1_groups_list(3), SSL_CTX_set1_sigalgs_list(3).
 */

/** The TLS versions that OpenSSL 3 has, oldest first. */
export const tlsVersions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;
export type TlsVersion = (typeof tlsVersions)[number];

/** The kinds of choices of a priority string. A set's order is the order of preference. */
export interface Algorithms<T extends Iterable<string> = Set<string>> {
  readonly versions: T;
  readonly ciphers: T;
  readonly macs: T;
  readonly keyExchanges: T;
  readonly groups: T;
  readonly signatures: T;
}

/** GnuTLS's ciphers that some suite of OpenSSL uses, with the bits of their keys. */
const cipherBits: Readonly<Record<string, number>> = {
  'AES-256-GCM': 256,
  'CHACHA20-POLY1305': 256,
  'AES-256-CCM': 256,
  'AES-256-CCM-8': 256,
  'AES-256-CBC': 256,
  'AES-128-GCM': 128,
  'AES-128-CCM': 128,
  'AES-128-CCM-8': 128,
  'AES-128-CBC': 128,
  'CAMELLIA-256-CBC': 256,
  'CAMELLIA-128-CBC': 128,
};
export const cipherNames = Object.keys(cipherBits);
export const macNames = ['AEAD', 'SHA1', 'SHA256', 'SHA384'] as const;

/** Key exchanges with the beginning of their suites' names. */
const keyExchangePrefixes = {
  'ECDHE-ECDSA': 'ECDHE-ECDSA-',
  'ECDHE-RSA': 'ECDHE-RSA-',
  RSA: '',
  'DHE-RSA': 'DHE-RSA-',
} as const;
type KeyExchange = keyof typeof keyExchangePrefixes;
export const keyExchangeNames = Object.keys(keyExchangePrefixes) as readonly KeyExchange[];

/** Groups by GnuTLS's name, without GROUP- or CURVE-. */
export const groupNames: Readonly<Record<string, string>> = {
  SECP256R1: 'P-256',
  SECP384R1: 'P-384',
  SECP521R1: 'P-521',
  X25519: 'X25519',
  X448: 'X448',
  FFDHE2048: 'ffdhe2048',
  FFDHE3072: 'ffdhe3072',
  FFDHE4096: 'ffdhe4096',
  FFDHE6144: 'ffdhe6144',
  FFDHE8192: 'ffdhe8192',
};

/** Signature algorithms by GnuTLS's name, without SIGN-. Two of them may be one for OpenSSL. */
export const signatureNames: Readonly<Record<string, string>> = {
  'RSA-SHA256': 'RSA+SHA256',
  'RSA-PSS-SHA256': 'rsa_pss_pss_sha256',
  'RSA-PSS-RSAE-SHA256': 'rsa_pss_rsae_sha256',
  'ECDSA-SHA256': 'ECDSA+SHA256',
  'ECDSA-SECP256R1-SHA256': 'ECDSA+SHA256',
  'EDDSA-ED25519': 'ed25519',
  'RSA-SHA384': 'RSA+SHA384',
  'RSA-PSS-SHA384': 'rsa_pss_pss_sha384',
  'RSA-PSS-RSAE-SHA384': 'rsa_pss_rsae_sha384',
  'ECDSA-SHA384': 'ECDSA+SHA384',
  'ECDSA-SECP384R1-SHA384': 'ECDSA+SHA384',
  'EDDSA-ED448': 'ed448',
  'RSA-SHA512': 'RSA+SHA512',
  'RSA-PSS-SHA512': 'rsa_pss_pss_sha512',
  'RSA-PSS-RSAE-SHA512': 'rsa_pss_rsae_sha512',
  'ECDSA-SHA512': 'ECDSA+SHA512',
  'ECDSA-SECP521R1-SHA512': 'ECDSA+SHA512',
  'RSA-SHA1': 'RSA+SHA1',
  'ECDSA-SHA1': 'ECDSA+SHA1',
};

/** TLS 1.3 suites: cipher, OpenSSL's name. All go with the MAC AEAD. */
const modernSuites: readonly (readonly [cipher: string, name: string])[] = [
  ['AES-256-GCM', 'TLS_AES_256_GCM_SHA384'],
  ['CHACHA20-POLY1305', 'TLS_CHACHA20_POLY1305_SHA256'],
  ['AES-128-GCM', 'TLS_AES_128_GCM_SHA256'],
  ['AES-128-CCM', 'TLS_AES_128_CCM_SHA256'],
  ['AES-128-CCM-8', 'TLS_AES_128_CCM_8_SHA256'],
];

const withAll = keyExchangeNames;
const withoutEcdheRsa = withAll.filter((name) => name !== 'ECDHE-RSA');
const withEcdhe = withAll.filter((name) => name.startsWith('ECDHE'));
const withoutEcdhe = withAll.filter((name) => !name.startsWith('ECDHE'));
const withEphemeral = withAll.filter((name) => name !== 'RSA');

/** Suites up to TLS 1.2: cipher, MAC, the end of OpenSSL's names, the key exchanges there are. */
const classicSuites: readonly (readonly [
  cipher: string,
  mac: string,
  suffix: string,
  keyExchanges: readonly KeyExchange[],
])[] = [
  ['AES-256-GCM', 'AEAD', 'AES256-GCM-SHA384', withAll],
  ['CHACHA20-POLY1305', 'AEAD', 'CHACHA20-POLY1305', withEphemeral],
  ['AES-128-GCM', 'AEAD', 'AES128-GCM-SHA256', withAll],
  ['AES-256-CCM', 'AEAD', 'AES256-CCM', withoutEcdheRsa],
  ['AES-128-CCM', 'AEAD', 'AES128-CCM', withoutEcdheRsa],
  ['AES-256-CCM-8', 'AEAD', 'AES256-CCM8', withoutEcdheRsa],
  ['AES-128-CCM-8', 'AEAD', 'AES128-CCM8', withoutEcdheRsa],
  ['AES-256-CBC', 'SHA384', 'AES256-SHA384', withEcdhe],
  ['AES-256-CBC', 'SHA256', 'AES256-SHA256', withoutEcdhe],
  ['AES-256-CBC', 'SHA1', 'AES256-SHA', withAll],
  ['AES-128-CBC', 'SHA256', 'AES128-SHA256', withAll],
  ['AES-128-CBC', 'SHA1', 'AES128-SHA', withAll],
  ['CAMELLIA-256-CBC', 'SHA384', 'CAMELLIA256-SHA384', withEcdhe],
  ['CAMELLIA-256-CBC', 'SHA256', 'CAMELLIA256-SHA256', withoutEcdhe],
  ['CAMELLIA-256-CBC', 'SHA1', 'CAMELLIA256-SHA', withoutEcdhe],
  ['CAMELLIA-128-CBC', 'SHA256', 'CAMELLIA128-SHA256', withAll],
  ['CAMELLIA-128-CBC', 'SHA1', 'CAMELLIA128-SHA', withoutEcdhe],
];

/** OpenSSL's names of the TLS 1.3 suites of a selection, best first. */
export function modernSuiteNames({ ciphers, macs }: Algorithms): string[] {
  if (!macs.has('AEAD')) return [];
  return [...ciphers].flatMap((cipher) =>
    modernSuites.filter((suite) => suite[0] === cipher).map(([, name]) => name),
  );
}

/** OpenSSL's names of a selection's suites up to TLS 1.2, best first; ECDHE only with a curve. */
export function classicSuiteNames({ ciphers, macs, keyExchanges, groups }: Algorithms): string[] {
  const curves = [...groups].some((group) => !group.startsWith('FFDHE'));
  return [...keyExchanges].flatMap((keyExchange) => {
    if (keyExchange.startsWith('ECDHE') && !curves) return [];
    return [...ciphers].flatMap((cipher) =>
      [...macs].flatMap((mac) => suiteName(keyExchange as KeyExchange, cipher, mac)),
    );
  });
}

function suiteName(keyExchange: KeyExchange, cipher: string, mac: string): string[] {
  return classicSuites
    .filter((row) => row[0] === cipher && row[1] === mac && row[3].includes(keyExchange))
    .map(([, , suffix]) => `${keyExchangePrefixes[keyExchange]}${suffix}`);
}

const bitsOfSuite = new Map<string, number>([
  ...modernSuites.map(([cipher, name]) => [name, cipherBits[cipher] ?? 0] as const),
  ...classicSuites.flatMap(([cipher, , suffix, keyExchanges]) =>
    keyExchanges.map(
      (name) => [`${keyExchangePrefixes[name]}${suffix}`, cipherBits[cipher] ?? 0] as const,
    ),
  ),
]);

/**
 * The bits of the negotiated cipher's key, for SASL's external security strength. `suite` is
 * `TLSSocket.getCipher().name`. 0 for a suite that no priority string can choose.
 */
export function cipherKeyBits(suite: string): number {
  return bitsOfSuite.get(suite) ?? 0;
}
