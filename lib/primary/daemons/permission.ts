import { accessRules, idOf, rightsOf, type Accounts } from '../../auth/rights.js';
import type { AccessSettings } from '../../config/cluster-keys.js';
import { isConfigured, type PlacesConfiguration } from '../../config/daemon-places.js';
import type { DaemonQuestion } from '../../control/messages.js';
import { NativeError } from '../../native/error.js';
import type { Client } from '../clients/client-registry.js';

/** What the primary itself can say of [access], without asking anybody about a client. */
export type KnownRules = ReturnType<typeof accessRules>;

/**
 * The rules of [access] with names of users and groups as they are now. NSS is not asked again,
 * since it may take its time and all clients would wait: which further groups a user has in the
 * databases, and what cannot be looked up now, is for workers to find out.
 */
export function knownRules(access: AccessSettings, accounts: Accounts): KnownRules {
  const users = numbersOf(access.read_only_users, accounts.userId);
  const groups = numbersOf(access.read_only_groups, accounts.groupId);
  return accessRules(access, {
    userId: (name) => users.get(name) ?? null,
    groupId: (name) => groups.get(name) ?? null,
    groupsOfUser: () => null,
  });
}

function numbersOf(
  names: readonly string[],
  lookup: (name: string) => number | null,
): ReadonlyMap<string, number | null> {
  return new Map(names.map((name) => [name, orNull(() => idOf(name, lookup))]));
}

function orNull(lookup: () => number | null): number | null {
  try {
    return lookup();
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    return null;
  }
}

/**
 * Why a client may not have a daemon's socket, as the end of a clause for the log; null when it
 * may. By what the primary knows of it: the kernel's word, polkit's, and what its worker has said
 * at its login, which it cannot take back.
 */
export function refusalOf(
  client: Client,
  { driver, readOnly }: DaemonQuestion,
  places: PlacesConfiguration,
  rules: KnownRules,
  hasGranted: (client: Client) => boolean,
): string | null {
  if (!isConfigured(places, driver)) return 'of which there is none in the configuration';
  const { auth, local } = client.introduction;
  const isIn = client.loggedIn && (auth !== 'polkit' || local?.uid === 0 || hasGranted(client));
  if (!isIn) return 'which has not logged in';
  if (!readOnly && isReadOnly(client, rules))
    return 'which may only look, by its read-write socket';
  return null;
}

function isReadOnly({ introduction, identity }: Client, rules: KnownRules): boolean {
  const { transport, local, remoteAddress } = introduction;
  const readOnly = introduction.readOnly || identity?.readOnly === true;
  const { saslUserName, x509Name } = identity ?? { saslUserName: null, x509Name: null };
  const client = { transport, readOnly, local, remoteAddress, saslUserName, x509Name };
  return rightsOf(client, rules).readOnly;
}
