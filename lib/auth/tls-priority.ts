import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { SecureContextOptions } from 'node:tls';
import { parse } from 'ini';
import {
  classicSuiteNames,
  groupNames,
  modernSuiteNames,
  signatureNames,
  tlsVersions,
  type Algorithms,
  type TlsVersion,
} from './tls-algorithms.js';
import {
  absentAlgorithms,
  initialAlgorithms,
  meaninglessChoices,
  meaninglessFlags,
  priorityChoices,
  priorityLevels,
  profileSecurityLevels,
  type PriorityLevel,
} from './tls-priority-words.js';

/** A tls_priority that OpenSSL cannot follow. `token` is the part of it that is at fault. */
export class TlsPriorityError extends Error {
  override readonly name = 'TlsPriorityError';
  readonly code = 'TLS_PRIORITY';
  readonly token: string;

  constructor(token: string, reason: string) {
    super(`tls_priority: "${token}" ${reason}`);
    this.token = token;
  }
}

/** What a priority string means for node:tls, to be spread into a secure context's options. */
export type TlsOptions = Pick<
  SecureContextOptions,
  'ciphers' | 'dhparam' | 'ecdhCurve' | 'honorCipherOrder' | 'secureOptions' | 'sigalgs'
> & { readonly minVersion: TlsVersion; readonly maxVersion: TlsVersion };

interface Flags {
  serverPrecedence: boolean;
  encryptThenMac: boolean;
  /** OpenSSL's security level; null for node's own. */
  securityLevel: number | null;
}

const unknownWord = 'is nothing that GnuTLS knows.';

const kinds = ['versions', 'ciphers', 'macs', 'keyExchanges', 'groups', 'signatures'] as const;

/**
 * Translates a GnuTLS priority string, the form of tls_priority (GnuTLS manual, "Priority
 * strings"). Case does not matter. Unlike with GnuTLS, TLS 1.0 and 1.1 must be asked for, by LEGACY
 * or +VERS-. They and SHA-1 signatures need OpenSSL's security level 0, which also admits short
 * keys and weak digests in certificates.
 *
 * `@NAME` stands for what `systemWide` has under that name. Where that has none of the names, a
 * keyword among them stands for itself and SYSTEM for NORMAL.
 *
 * Throws TlsPriorityError for what OpenSSL cannot do and for a string that leaves nothing to
 * negotiate. Taking away what is not there does nothing; `onUnknown` is told of names that GnuTLS
 * has not had so far.
 */
export function mapPriority(
  text: string,
  systemWide = systemPriorities,
  onUnknown: (token: string) => void = () => undefined,
): TlsOptions {
  const tokens = resolve(text.trim(), systemWide)
    .split(':')
    .map((token) => token.trim());
  const none = tokens[0]?.toUpperCase() === 'NONE';
  const algorithms = none ? emptyAlgorithms() : union(emptyAlgorithms(), initialAlgorithms);
  const flags: Flags = { serverPrecedence: false, encryptThenMac: true, securityLevel: null };
  let levelSeen = none;
  for (const token of none ? tokens.slice(1) : tokens) {
    const level = priorityLevels.get(token.toUpperCase());
    if (level !== undefined) {
      if (!levelSeen) clearFor(level, algorithms);
      union(algorithms, level);
      levelSeen = true;
    } else if (token.startsWith('%')) {
      setFlag(flags, token);
    } else {
      change(algorithms, token, onUnknown);
    }
  }
  return toOptions(text, algorithms, flags);
}

/**
 * The priority strings that this host's administrator has named in GnuTLS's own file (GnuTLS
 * manual, "System-wide configuration"); none without the file. Where the file lists what is allowed
 * instead of naming a string, SYSTEM is left out.
 */
export function systemPriorities(file = '/etc/gnutls/config'): ReadonlyMap<string, string> {
  let sections: Record<string, unknown>;
  try {
    sections = parse(readFileSync(file, 'utf8'));
  } catch {
    return new Map();
  }
  const { global = {}, priorities = {} } = sections as Record<string, Record<string, unknown>>;
  const named = new Map<string, string>();
  for (const [name, value] of Object.entries({ ...sections, ...priorities })) {
    if (typeof value === 'string') named.set(name, value);
  }
  if (global['override-mode'] === 'allowlist') named.delete('SYSTEM');
  return named;
}

function resolve(text: string, systemWide: () => ReadonlyMap<string, string>): string {
  if (!text.startsWith('@')) return text;
  const [list = '', ...rest] = text.slice(1).split(':');
  const names = list.split(',').map((name) => name.trim());
  const defined = systemWide();
  const found = names.find((name) => defined.has(name));
  const keyword = names
    .map((name) => (name.toUpperCase() === 'SYSTEM' ? 'NORMAL' : name))
    .findLast((name) => priorityLevels.has(name.toUpperCase()));
  const meaning = found === undefined ? keyword : defined.get(found);
  if (meaning === undefined) {
    throw new TlsPriorityError(`@${list}`, 'is not defined in /etc/gnutls/config.');
  }
  return [meaning, ...rest].join(':');
}

function emptyAlgorithms(): Algorithms {
  return {
    versions: new Set(),
    ciphers: new Set(),
    macs: new Set(),
    keyExchanges: new Set(),
    groups: new Set(),
    signatures: new Set(),
  };
}

function union(algorithms: Algorithms, level: PriorityLevel): Algorithms {
  for (const kind of kinds) {
    for (const name of level[kind]) algorithms[kind].add(name);
  }
  return algorithms;
}

/** The first keyword replaces the defaults, except for versions it says nothing about. */
function clearFor(level: PriorityLevel, algorithms: Algorithms): void {
  for (const kind of kinds) {
    if (level[kind].length > 0) algorithms[kind].clear();
  }
}

function setFlag(flags: Flags, token: string): void {
  const name = token.slice(1).toUpperCase();
  const level = profileSecurityLevels.get(name);
  if (name === 'SERVER_PRECEDENCE') {
    flags.serverPrecedence = true;
  } else if (name === 'NO_ETM') {
    flags.encryptThenMac = false;
  } else if (level !== undefined) {
    flags.securityLevel = level;
  } else if (!meaninglessFlags.has(name)) {
    throw new TlsPriorityError(token, 'is a flag that OpenSSL has no counterpart of.');
  }
}

function change(algorithms: Algorithms, token: string, onUnknown: (token: string) => void): void {
  const sign = token[0] ?? '';
  const name = token.slice(1).toUpperCase();
  if (!['+', '-', '!'].includes(sign)) {
    throw new TlsPriorityError(token, 'is no keyword of a GnuTLS priority string.');
  }
  const adding = sign === '+';
  const level = priorityLevels.get(name);
  const choice = priorityChoices.get(name);
  if (adding && level !== undefined) {
    union(algorithms, level);
  } else if (choice !== undefined) {
    const set = algorithms[choice.kind];
    if (!adding && choice.clears) set.clear();
    for (const member of choice.members) {
      if (adding) set.add(member);
      else set.delete(member);
    }
  } else if (absentAlgorithms.test(name)) {
    if (adding) throw new TlsPriorityError(token, "is nothing that node's OpenSSL can do.");
  } else if (adding ? !meaninglessChoices.test(name) : level !== undefined || name === '') {
    throw new TlsPriorityError(token, adding ? unknownWord : 'is nothing that can be taken away.');
  } else if (!meaninglessChoices.test(name)) {
    onUnknown(token);
  }
}

function toOptions(text: string, algorithms: Algorithms, flags: Flags): TlsOptions {
  const { groups, signatures } = algorithms;
  const modern = modernSuiteNames(algorithms);
  const classic = classicSuiteNames(algorithms);
  const versions = tlsVersions.filter((version) => {
    if (!algorithms.versions.has(version)) return false;
    if (version === 'TLSv1.3') return modern.length * groups.size * signatures.size > 0;
    return classic.length > 0 && (version !== 'TLSv1.2' || signatures.size > 0);
  });
  const [minVersion, maxVersion] = [versions[0], versions.at(-1)];
  if (minVersion === undefined || maxVersion === undefined) {
    throw new TlsPriorityError(text, 'leaves no TLS version together with a cipher suite for it.');
  }
  const weak = minVersion < 'TLSv1.2' || [...signatures].some((name) => name.endsWith('SHA1'));
  if (weak && (flags.securityLevel ?? 0) > 0) {
    throw new TlsPriorityError(text, 'asks for a profile and for TLS or signatures below it.');
  }
  const level = weak ? 0 : flags.securityLevel;
  // The level stands in the list of classic suites, which must not be empty then.
  const levelled = classic.length > 0 ? classic : ['HIGH'];
  const suites = level === null ? classic : [...levelled, `@SECLEVEL=${level}`];
  return {
    minVersion,
    maxVersion,
    ciphers: [...(maxVersion === 'TLSv1.3' ? modern : []), ...suites].join(':'),
    honorCipherOrder: flags.serverPrecedence,
    secureOptions:
      withoutVersionsBetween(versions) |
      (flags.encryptThenMac ? 0 : constants.SSL_OP_NO_ENCRYPT_THEN_MAC),
    ...(classic.some((suite) => suite.startsWith('DHE-')) ? { dhparam: 'auto' } : {}),
    ...(groups.size > 0 ? { ecdhCurve: translated(groups, groupNames) } : {}),
    ...(signatures.size > 0 ? { sigalgs: translated(signatures, signatureNames) } : {}),
  };
}

function translated(names: ReadonlySet<string>, table: Readonly<Record<string, string>>): string {
  return [...new Set([...names].map((name) => table[name]))].join(':');
}

/** The option bits that shut the gaps between the lowest and the highest of these versions. */
function withoutVersionsBetween(versions: readonly TlsVersion[]): number {
  const oldest = versions[0] ?? 'TLSv1';
  const newest = versions.at(-1) ?? 'TLSv1';
  const within = (version: TlsVersion): boolean => version > oldest && version < newest;
  const shut = (version: TlsVersion): boolean => within(version) && !versions.includes(version);
  return (
    (shut('TLSv1.1') ? constants.SSL_OP_NO_TLSv1_1 : 0) |
    (shut('TLSv1.2') ? constants.SSL_OP_NO_TLSv1_2 : 0)
  );
}
