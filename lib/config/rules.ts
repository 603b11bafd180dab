import type { AccessSettings } from './cluster-keys.js';
import { type ConfigProblem, type ListenerKey, problemAt, withPlace } from './errors.js';
import type { ConfKey, ConfSettings } from './keys.js';
import type { Mode } from './paths.js';
import type { CheckedSettings } from './settings.js';

/** A statement about several keys: a sentence when it is broken, null when it holds. */
interface Rule {
  /** The keys it is about. A problem is reported at the first one that the file sets. */
  readonly keys: readonly ConfKey[];
  /** It must hold only while one of these listeners is on. */
  readonly needs?: readonly ListenerKey[];
  readonly check: (conf: ConfSettings, mode: Mode, readOnlyListeners: Listeners) => string | null;
}

/** Those that [access] makes read-only. */
type Listeners = AccessSettings['read_only_listeners'];

const TLS_FILE_KEYS = ['key_file', 'cert_file', 'ca_file'] as const;

const CONFLICTS: readonly Rule[] = [
  {
    keys: ['max_clients', 'max_anonymous_clients'],
    check: ({ max_clients: all, max_anonymous_clients: anonymous }) =>
      all < anonymous
        ? `max_clients (${all}) must not be below max_anonymous_clients (${anonymous}): raise the one or lower the other.`
        : null,
  },
  {
    keys: TLS_FILE_KEYS,
    needs: ['listen_tls'],
    check: (conf) => {
      const missing = TLS_FILE_KEYS.filter((key) => conf[key] === null);
      return missing.length === 0 || missing.length === TLS_FILE_KEYS.length
        ? null
        : `key_file, cert_file and ca_file must be set together: ${missing.join(' and ')} is missing.`;
    },
  },
];

const DANGERS: readonly Rule[] = [
  {
    keys: ['auth_tcp', 'listen_tcp'],
    check: ({ listen_tcp, auth_tcp }, _, readOnly) =>
      listen_tcp && auth_tcp === 'none'
        ? `auth_tcp is "none": everybody who reaches the TCP port ${readOnly.includes('tcp') ? 'may look at' : 'controls'} this host, unencrypted.`
        : null,
  },
  {
    keys: ['auth_tls', 'listen_tls'],
    check: (conf, _, readOnly) => {
      if (!conf.listen_tls || conf.auth_tls !== 'none') return null;
      const isReadOnly = readOnly.includes('tls');
      if (conf.tls_no_verify_certificate) {
        return `auth_tls is "none" and tls_no_verify_certificate is 1: everybody who reaches the TLS port ${isReadOnly ? 'may look at' : 'controls'} this host.`;
      }
      return conf.tls_allowed_dn_list === null
        ? `auth_tls is "none" and tls_allowed_dn_list is not set: every certificate of the CA gives ${isReadOnly ? 'a view' : 'control'} of this host.`
        : null;
    },
  },
  {
    keys: ['auth_unix_rw', 'unix_sock_rw_perms'],
    check: ({ auth_unix_rw, unix_sock_rw_perms }, mode, readOnly) =>
      mode === 'system' &&
      !readOnly.includes('unix') &&
      auth_unix_rw === 'none' &&
      (parseInt(unix_sock_rw_perms, 8) & 0o2) !== 0
        ? `auth_unix_rw is "none" and unix_sock_rw_perms is "${unix_sock_rw_perms}": every local user has the rights of root.`
        : null,
  },
  {
    keys: ['tls_allowed_dn_list', 'listen_tls'],
    check: ({ listen_tls, tls_allowed_dn_list }) =>
      listen_tls && tls_allowed_dn_list?.length === 0
        ? 'tls_allowed_dn_list is empty: no TLS client will be let in.'
        : null,
  },
];

/** The settings that contradict each other; keys with a problem of their own are left out. */
export function findConflicts(checked: CheckedSettings, file: string, mode: Mode): ConfigProblem[] {
  const faulty = new Set(checked.problems.map(({ key }) => key));
  return broken(CONFLICTS, checked, mode)
    .filter(({ rule }) => !rule.keys.some((key) => faulty.has(key)))
    .map(({ rule: { needs }, sentence, line, key }) => {
      const problem = problemAt('conflict', { file, line, key }, sentence);
      return needs === undefined ? problem : { ...problem, needs };
    });
}

/** What an administrator should know about settings that are allowed but open a host to others. */
export function findDangers(
  checked: CheckedSettings,
  file: string,
  mode: Mode,
  { read_only_listeners }: AccessSettings,
): string[] {
  return broken(DANGERS, checked, mode, read_only_listeners).map(({ sentence, line, key }) =>
    withPlace({ file, line, key }, sentence),
  );
}

function broken(
  rules: readonly Rule[],
  { conf, lines }: CheckedSettings,
  mode: Mode,
  readOnlyListeners: Listeners = [],
) {
  return rules.flatMap((rule) => {
    const sentence = rule.check(conf, mode, readOnlyListeners);
    if (sentence === null) return [];
    const key = rule.keys.find((name) => lines.has(name)) ?? null;
    return [{ rule, sentence, key, line: key === null ? null : (lines.get(key) ?? null) }];
  });
}
