import { createPrivateKey, X509Certificate, constants, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext, type TlsOptions } from 'node:tls';
import type { TlsContents, TlsFiles } from '../config/paths.js';
import {
  certificateFields,
  issuerOf,
  keyPurpose,
  servesPurpose,
  validityAt,
} from './certificate-fields.js';
import { DerError } from './der.js';
import { losesChains } from './lost-chains.js';
import { RevocationLists } from './revocation-lists.js';
import { mapPriority } from './tls-priority.js';

/**
 * What is wrong with the server's own TLS files:
 * - `unreadable` the file cannot be read
 * - `unparsable` it does not hold what it should
 * - `key-mismatch` key and certificate do not belong together
 * - `rejected` OpenSSL does not take them, for a reason its message tells
 * - `expired`, `not-yet-valid`, `not-a-ca`, `is-a-ca`, `key-usage`, `purpose`, `untrusted` the
 *   checks that tls_no_sanity_certificate turns off
 */
export type TlsCredentialsFault =
  | 'unreadable'
  | 'unparsable'
  | 'key-mismatch'
  | 'rejected'
  | 'expired'
  | 'not-yet-valid'
  | 'not-a-ca'
  | 'is-a-ca'
  | 'key-usage'
  | 'purpose'
  | 'untrusted';

/** The server's own TLS files cannot be used; `file` is the one at fault. */
export class TlsCredentialsError extends Error {
  override readonly name = 'TlsCredentialsError';
  readonly code: TlsCredentialsFault;
  readonly file: string;

  constructor(code: TlsCredentialsFault, file: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.file = file;
  }
}

export interface TlsCredentialsOptions {
  /** Whether to check the CA and the server's certificate: tls_no_sanity_certificate is 0. */
  readonly sanityCheck: boolean;
  /** tls_priority. Unset means NORMAL: TLS 1.2 and later. */
  readonly priority: string | null;
  /** Whether clients need a valid certificate: tls_no_verify_certificate is 0. */
  readonly verifyClients: boolean;
}

/** All that the TLS listener takes from its files. A reload loads a new one and drops the old. */
export interface TlsCredentials {
  /**
   * For `tls.createServer()`, or spread into the options of a server-side TLSSocket. Clients are
   * asked for a certificate and let through without a good one, so that `verifyClientCertificate`
   * decides.
   */
  readonly serverOptions: TlsOptions;
  readonly secureContext: SecureContext;
  readonly authorities: readonly X509Certificate[];
  readonly revocations: RevocationLists;
  readonly verifyClients: boolean;
  /** When the first certificate of the file expires. */
  readonly notAfter: { readonly ca: Date; readonly cert: Date };
  /** Full sentences about what works now but deserves a look. */
  readonly warnings: readonly string[];
}

const mebibyte = 1024 ** 2;

/**
 * What each file is, the key that names it, and the most bytes it may have: a message to a worker
 * has all four.
 */
const fileKeys = {
  ca: ['CA certificate', 'ca_file', 2 * mebibyte],
  crl: ['certificate revocation list', 'crl_file', 8 * mebibyte],
  cert: ['server certificate', 'cert_file', mebibyte],
  key: ['private key', 'key_file', mebibyte],
} as const;

/**
 * Neither resumption, which skips the check of the client's certificate, nor renegotiation, which
 * could change the certificate after its check. Without tickets nothing is left to resume, since
 * node keeps no sessions of its own.
 */
const alwaysOff = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;

/** Reads the TLS files. Throws TlsCredentialsError: `unreadable`, or `unparsable` for its size. */
export function readTlsFiles(files: TlsFiles): TlsContents {
  const { ca, crl, cert, key } = files;
  const text = {
    ca: readFile(ca, 'ca'),
    crl: crl === null ? null : readFile(crl, 'crl'),
    cert: readFile(cert, 'cert'),
    key: readFile(key, 'key'),
  };
  return { ...files, text };
}

/**
 * Checks what is in the TLS files. That of the CA may hold several authorities, that of the
 * certificate its chain after it. Throws TlsCredentialsError, and TlsPriorityError for the
 * priority.
 */
export function loadTlsCredentials(
  files: TlsContents,
  { sanityCheck, priority, verifyClients }: TlsCredentialsOptions,
  now = new Date(),
): TlsCredentials {
  const authorities = readCertificates(files, 'ca');
  const chain = readCertificates(files, 'cert');
  const revocations = readRevocations(files);
  const key = readKey(files);
  const [certificate] = chain;
  const warnings = [
    ...revocationWarnings(files.crl, revocations, now),
    ...chainWarnings(files.crl),
  ];
  if (!certificate.checkPrivateKey(key)) {
    throw new TlsCredentialsError(
      'key-mismatch',
      files.key,
      `The private key ${files.key} is not the one of the server certificate ${files.cert}.`,
    );
  }
  if (sanityCheck) {
    for (const authority of authorities) checkAuthority(authority, files.ca, now);
    warnings.push(...checkServer(certificate, files.cert, now));
    checkChain(chain, authorities, files);
  }
  const tlsOptions = mapPriority(priority ?? 'NORMAL');
  const serverOptions: TlsOptions = {
    ...tlsOptions,
    secureOptions: (tlsOptions.secureOptions ?? 0) | alwaysOff,
    ca: authorities.map(String),
    cert: chain.map(String).join(''),
    key: key.export({ type: 'pkcs8', format: 'pem' }),
    requestCert: true,
    rejectUnauthorized: false,
  };
  return {
    serverOptions,
    secureContext: secureContextOf(serverOptions, files),
    authorities,
    revocations,
    verifyClients,
    notAfter: { ca: firstExpiry(authorities), cert: firstExpiry(chain) },
    warnings,
  };
}

function readFile(file: string, kind: keyof typeof fileKeys): string {
  const [what, key, most] = fileKeys[kind];
  let content: Buffer;
  try {
    content = readFileSync(file);
  } catch (error) {
    const message = `Cannot read the ${what}: ${(error as Error).message}. Set ${key} or make the file readable.`;
    throw new TlsCredentialsError('unreadable', file, message, { cause: error });
  }
  if (content.length > most) {
    const message = `${file} has ${content.length} bytes, and a ${what} may have ${most}.`;
    throw new TlsCredentialsError('unparsable', file, message);
  }
  return content.toString('latin1');
}

function unparsable(file: string, kind: keyof typeof fileKeys, cause?: unknown) {
  const [what] = fileKeys[kind];
  const reason = cause instanceof Error ? `: ${cause.message}` : '.';
  const message = `${file} does not hold a ${what} in PEM form${reason}`;
  return new TlsCredentialsError('unparsable', file, message, { cause });
}

type NotEmpty<T> = readonly [T, ...T[]];

/** The PEM blocks of a text that are labelled so; null when there is none. */
function blocksOf(text: string, label: string): NotEmpty<string> | null {
  const [first, ...others] =
    text.match(new RegExp(`-----BEGIN ${label}-----[^-]*-----END ${label}-----`, 'g')) ?? [];
  return first === undefined ? null : [first, ...others];
}

function readCertificates(files: TlsContents, kind: 'ca' | 'cert'): NotEmpty<X509Certificate> {
  const file = files[kind];
  const blocks = blocksOf(files.text[kind], '(?:X509 )?CERTIFICATE');
  if (blocks === null) throw unparsable(file, kind);
  const [first, ...others] = blocks;
  try {
    return [new X509Certificate(first), ...others.map((block) => new X509Certificate(block))];
  } catch (error) {
    throw unparsable(file, kind, error);
  }
}

function readRevocations({ crl: file, text }: TlsContents): RevocationLists {
  if (file === null || text.crl === null) return new RevocationLists([]);
  const blocks = blocksOf(text.crl, 'X509 CRL');
  if (blocks === null) throw unparsable(file, 'crl');
  try {
    return new RevocationLists(
      blocks.map((block) => Buffer.from(block.replace(/-----[^-]*-----/g, ''), 'base64')),
    );
  } catch (error) {
    if (error instanceof DerError) throw unparsable(file, 'crl', error);
    throw error;
  }
}

function readKey({ key: file, text }: TlsContents): KeyObject {
  try {
    return createPrivateKey(text.key);
  } catch (error) {
    throw unparsable(file, 'key', error);
  }
}

function revocationWarnings(
  file: string | null,
  { nextUpdate }: RevocationLists,
  now: Date,
): string[] {
  if (file === null || nextUpdate === null || nextUpdate >= now) return [];
  return [
    `The certificate revocation list ${file} was due to be replaced on ${day(nextUpdate)}. It stays in force.`,
  ];
}

/** What revocation lists mean for clients with this version of Node.js, or another. */
export function chainWarnings(file: string | null, version: string = process.version): string[] {
  if (file === null || !losesChains(version)) return [];
  return [
    `Node.js ${version} loses the certificates that clients send above their own (nodejs/node#64677), so with ${file} clients of a CA below those of ca_file are refused unless ca_file holds that CA too. Use another version of Node.js.`,
  ];
}

function checkAuthority(authority: X509Certificate, file: string, now: Date): void {
  checkValidity(authority, 'CA certificate', file, now);
  const fields = fieldsOf(authority, file, 'ca');
  if (!fields.authority) {
    const message = `The certificate ${nameOf(authority)} in ${file} is not one of a CA: its basic constraints do not say so.`;
    throw new TlsCredentialsError('not-a-ca', file, message);
  }
  if (fields.keyUsage !== null && !fields.keyUsage.keyCertSign) {
    const message = `The key usage of the CA certificate ${nameOf(authority)} in ${file} does not permit certificate signing.`;
    throw new TlsCredentialsError('key-usage', file, message);
  }
}

/** Returns warnings: what libvirt lets pass because the extension is not critical. */
function checkServer(certificate: X509Certificate, file: string, now: Date): string[] {
  checkValidity(certificate, 'server certificate', file, now);
  const { authority, keyUsage } = fieldsOf(certificate, file, 'cert');
  if (authority) {
    const message = `The server certificate ${file} is one of a CA. Issue one for the server with it.`;
    throw new TlsCredentialsError('is-a-ca', file, message);
  }
  if (!servesPurpose(certificate, keyPurpose.serverAuthentication)) {
    const message = `The server certificate ${file} is not meant for a TLS server: its extended key usage lacks it.`;
    throw new TlsCredentialsError('purpose', file, message);
  }
  if (keyUsage === null) return [];
  const lacking: string[] = [];
  if (!keyUsage.digitalSignature) lacking.push('digital signature');
  // Only RSA keys can encipher; RFC 8813 forbids the bit for elliptic curves.
  const rsa = certificate.publicKey.asymmetricKeyType === 'rsa';
  if (rsa && !keyUsage.keyEncipherment) lacking.push('key encipherment');
  if (lacking.length === 0) return [];
  const message = `The key usage of the server certificate ${file} does not permit ${lacking.join(' and ')}.`;
  if (keyUsage.critical) throw new TlsCredentialsError('key-usage', file, message);
  return [message];
}

function checkValidity(certificate: X509Certificate, what: string, file: string, now: Date): void {
  const validity = validityAt(certificate, now);
  if (validity === 'valid') return;
  const reason =
    validity === 'expired'
      ? `expired on ${day(certificate.validTo)}`
      : `is not valid before ${day(certificate.validFrom)}`;
  const message = `The ${what} ${nameOf(certificate)} in ${file} ${reason}.`;
  throw new TlsCredentialsError(validity, file, message);
}

function checkChain(
  [certificate, ...intermediates]: NotEmpty<X509Certificate>,
  authorities: readonly X509Certificate[],
  files: TlsFiles,
): void {
  let current: X509Certificate | undefined = certificate;
  // Each step uses up an intermediate certificate, so a loop of them ends.
  for (let steps = 0; current !== undefined && steps <= intermediates.length; steps += 1) {
    if (issuerOf(current, authorities) !== undefined) return;
    current = issuerOf(current, intermediates);
  }
  throw new TlsCredentialsError(
    'untrusted',
    files.cert,
    `The server certificate ${files.cert} is not signed by a CA of ${files.ca}.`,
  );
}

function fieldsOf(certificate: X509Certificate, file: string, kind: keyof typeof fileKeys) {
  try {
    return certificateFields(certificate.raw);
  } catch (error) {
    throw unparsable(file, kind, error);
  }
}

function secureContextOf(options: TlsOptions, files: TlsFiles): SecureContext {
  try {
    return createSecureContext(options);
  } catch (error) {
    const reason = (error as Error).message;
    const message = `OpenSSL does not take ${files.cert}, ${files.key} and ${files.ca}: ${reason}`;
    throw new TlsCredentialsError('rejected', files.cert, message, { cause: error });
  }
}

function firstExpiry([first, ...others]: NotEmpty<X509Certificate>): Date {
  const times = [first, ...others].map(({ validTo }) => new Date(validTo).getTime());
  return new Date(Math.min(...times));
}

function nameOf({ subject }: X509Certificate): string {
  return `"${subject.replaceAll('\n', ',')}"`;
}

function day(time: Date | string): string {
  return new Date(time).toISOString().slice(0, 10);
}
