import type { AccessKey } from '../config/cluster-keys.js';
import type { Configuration } from '../config/configuration.js';
import { placeOfClusterKey } from '../config/key-fault.js';
import { NativeError } from '../native/error.js';
import { idOf, type Accounts } from './rights.js';

/** What to say of one list, as ends of sentences that begin with the key. */
type Inspection = (list: readonly string[], configuration: Configuration) => readonly string[];

/** Sentences about lists of [access] that can name nobody, or fewer than they seem to. */
export function inspectAccess(configuration: Configuration, accounts: Accounts): string[] {
  const inspections: Readonly<Record<AccessKey, Inspection>> = {
    read_only_dn_list: (_, { conf }) => {
      if (!conf.listen_tls) return ['can name nobody while listen_tls is 0'];
      return conf.tls_no_verify_certificate
        ? [
            'can be evaded while tls_no_verify_certificate is 1: no client has to show a certificate',
          ]
        : [];
    },
    read_only_username_list: (_, { conf }) =>
      conf.auth_unix_rw === 'sasl' ||
      (conf.listen_tcp && conf.auth_tcp === 'sasl') ||
      (conf.listen_tls && conf.auth_tls === 'sasl')
        ? []
        : ['can name nobody: no listener for clients that may write has SASL logins'],
    read_only_users: unknownTo(accounts.userId, 'user'),
    read_only_groups: unknownTo(accounts.groupId, 'group'),
    read_only_addresses: (_, { conf }) =>
      conf.listen_tcp || conf.listen_tls
        ? []
        : ['can name nobody while listen_tcp and listen_tls are 0'],
    read_only_listeners: (list, { conf }) =>
      (['tcp', 'tls'] as const)
        .filter((transport) => list.includes(transport) && !conf[`listen_${transport}`])
        .map((transport) => `names ${transport}, but listen_${transport} is 0`),
  };
  const { access } = configuration;
  const keys = Object.keys(inspections) as AccessKey[];
  return keys
    .filter((key) => access[key].length > 0)
    .flatMap((key) => {
      const place = placeOfClusterKey(configuration, 'access', key) ?? key;
      return inspections[key](access[key], configuration).map((says) => `${place} ${says}.`);
    });
}

const unknownTo =
  (lookup: (name: string) => number | null, kind: string): Inspection =>
  (list) =>
    list.flatMap((each) => {
      try {
        return idOf(each, lookup) === null
          ? [`names '${each}', but there is no such ${kind} on this host`]
          : [];
      } catch (error) {
        if (!(error instanceof NativeError)) throw error;
        return [`names '${each}', which cannot be looked up: ${error.message}`];
      }
    });
