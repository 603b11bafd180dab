import { BlockList, isIPv4, isIPv6 } from 'node:net';
import type { AccessKey, AccessSettings } from '../config/cluster-keys.js';
import { NativeError } from '../native/error.js';
import { matchesAny } from './allow-list.js';

/** Who a client is once its login is over: only what the kernel, TLS and SASL vouch for. */
export interface ProvenClient {
  /** What it came over, as read_only_listeners names it. */
  readonly transport: string;
  /** It came by a read-only socket. */
  readonly readOnly: boolean;
  /** Of UNIX clients: user, and effective and supplementary groups of the process. */
  readonly local: {
    readonly uid: number;
    readonly gid: number;
    readonly groups: readonly number[];
  } | null;
  /** `address;port` of the far end of TCP and TLS. */
  readonly remoteAddress: string | null;
  readonly saslUserName: string | null;
  /** Distinguished name of the client's certificate. */
  readonly x509Name: string | null;
}

/**
 * The host's databases of users and groups; null where there is no entry. May throw NativeError.
 */
export interface Accounts {
  readonly userId: (name: string) => number | null;
  readonly groupId: (name: string) => number | null;
  readonly groupsOfUser: (uid: number) => readonly number[] | null;
}

/** What a client may do. */
export interface Rights {
  readonly readOnly: boolean;
  /** The key of [access] that names it, for the log; null when none does. */
  readonly because: string | null;
}

/** One key of [access]: whether it names a client. */
interface AccessRule {
  readonly key: AccessKey;
  readonly names: (client: ProvenClient) => boolean;
}

const readWrite: Rights = { readOnly: false, because: null };
const ofSocket: Rights = { readOnly: true, because: null };

/**
 * What a client may do. Rules only take away; one that cannot be asked, since a database of the
 * host does not answer, counts as one that names the client.
 */
export function rightsOf(client: ProvenClient, rules: readonly AccessRule[]): Rights {
  if (client.readOnly) return ofSocket;
  for (const { key, names } of rules) {
    try {
      if (names(client)) return { readOnly: true, because: key };
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      return { readOnly: true, because: `${key}, which cannot be looked up: ${error.message}` };
    }
  }
  return readWrite;
}

/** The rules of those keys that are set. */
export function accessRules(access: AccessSettings, accounts: Accounts): readonly AccessRule[] {
  const rules: Record<AccessKey, (list: readonly string[]) => AccessRule['names']> = {
    read_only_dn_list:
      (list) =>
      ({ x509Name }) =>
        x509Name !== null && matchesAny(list, x509Name),
    read_only_username_list:
      (list) =>
      ({ saslUserName }) =>
        saslUserName !== null && matchesAny(list, saslUserName),
    read_only_users:
      (list) =>
      ({ local }) =>
        local !== null && list.some((each) => idOf(each, accounts.userId) === local.uid),
    read_only_groups:
      (list) =>
      ({ local }) => {
        if (local === null) return false;
        const { uid, gid, groups } = local;
        const all = new Set([gid, ...groups, ...(accounts.groupsOfUser(uid) ?? [])]);
        return list.some((each) => all.has(idOf(each, accounts.groupId) ?? -1));
      },
    read_only_addresses: (list) => {
      const ranges = blockList(list);
      return ({ remoteAddress }) => remoteAddress !== null && isIn(ranges, remoteAddress);
    },
    read_only_listeners:
      (list) =>
      ({ transport }) =>
        list.includes(transport),
  };
  const keys = Object.keys(rules) as AccessKey[];
  return keys
    .filter((key) => access[key].length > 0)
    .map((key) => ({ key, names: rules[key](access[key]) }));
}

/** The number that is written, or that of the name. */
export function idOf(account: string, lookup: (name: string) => number | null): number | null {
  return /^[0-9]+$/.test(account) ? Number(account) : lookup(account);
}

/** Of addresses and `ADDRESS/BITS`, in both families. */
function blockList(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = '', bits] = range.split('/');
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    list.addSubnet(address, Number(bits ?? (family === 'ipv4' ? 32 : 128)), family);
  }
  return list;
}

/** The kernel adds the interface to a link-local address; the lists are about addresses alone. */
function isIn(ranges: BlockList, remoteAddress: string): boolean {
  const [address = ''] = remoteAddress.split(/[;%]/);
  return ranges.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
