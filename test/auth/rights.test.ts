import { expect } from 'chai';
import {
  accessRules,
  rightsOf,
  type Accounts,
  type ProvenClient,
  type Rights,
} from '../../lib/auth/rights.js';
import { parseClusterIni } from '../../lib/config/cluster-ini.js';
import { NativeError } from '../../lib/native/error.js';

/** prometheus has two names, and is in monitoring by the databases alone. */
const accounts: Accounts = {
  userId: (name) => ({ prometheus: 1005, alias: 1005, root: 0 })[name] ?? null,
  groupId: (name) => ({ monitoring: 2001, root: 0 })[name] ?? null,
  groupsOfUser: (uid) => ({ 1005: [1005, 2001] })[uid] ?? null,
};

const broken = (): never => {
  throw new NativeError('EIO', 'getpwnam_r', 'getpwnam_r failed for x: i/o error (EIO)');
};

const unknown = {
  readOnly: false,
  local: null,
  remoteAddress: null,
  saslUserName: null,
  x509Name: null,
};
const unix = (uid: number, gid = uid, groups: readonly number[] = []): ProvenClient => ({
  ...unknown,
  transport: 'unix',
  local: { uid, gid, groups },
});
const tcp = (address: string, saslUserName: string | null = null): ProvenClient => ({
  ...unknown,
  transport: 'tcp',
  remoteAddress: `${address};4711`,
  saslUserName,
});
const tls = (x509Name: string | null, saslUserName: string | null = null): ProvenClient => ({
  ...tcp('192.0.2.1', saslUserName),
  transport: 'tls',
  x509Name,
});

/** What a client may do under the lines of [access]. */
function under(lines: string, client: ProvenClient, databases = accounts): Rights {
  const { access, problems } = parseClusterIni(`[access]\n${lines}\n`, 'c.ini');
  expect(problems).to.deep.equal([]);
  return rightsOf(client, accessRules(access, databases));
}

/** The key that names the client; null when it may write. */
type Case = [what: string, lines: string, client: ProvenClient, because: string | null];

const dn = 'read_only_dn_list = C=GB,CN=monitor*';
const user = 'read_only_username_list = *@GUESTS';
const addresses = (...list: string[]): string =>
  list.map((each) => `read_only_addresses[] = ${each}\n`).join('');

const cases: Case[] = [
  ['nothing is set', '', unix(1005), null],
  ['a listed certificate', dn, tls('C=GB,CN=monitor7'), 'read_only_dn_list'],
  ['another certificate', dn, tls('C=GB,CN=alice'), null],
  ['a name that only ends like a listed one', dn, tls('O=x,C=GB,CN=monitor7'), null],
  ['no certificate', 'read_only_dn_list = *', tls(null), null],
  ['an empty name of a certificate', 'read_only_dn_list = *', tls(''), 'read_only_dn_list'],
  ['a listed user', user, tcp('192.0.2.1', 'joe@GUESTS'), 'read_only_username_list'],
  ['another user', user, tcp('192.0.2.1', 'joe@GUESTS.ORG'), null],
  ['no user', 'read_only_username_list = *', tcp('192.0.2.1'), null],
  [
    'a user over a UNIX socket',
    user,
    { ...unix(7), saslUserName: 'a@GUESTS' },
    'read_only_username_list',
  ],
  [
    'a listed certificate and another user',
    `${dn}\n${user}`,
    tls('C=GB,CN=monitor1', 'alice'),
    'read_only_dn_list',
  ],
  [
    'another certificate and a listed user',
    `${dn}\n${user}`,
    tls('C=GB,CN=alice', 'a@GUESTS'),
    'read_only_username_list',
  ],
  ['neither', `${dn}\n${user}`, tls('C=GB,CN=alice', 'alice'), null],
  ['a user called like a glob', 'read_only_username_list = mon*', tcp('192.0.2.1', '*'), null],
  [
    'a user called ? against one character',
    'read_only_username_list = ?',
    tcp('192.0.2.1', '?'),
    'read_only_username_list',
  ],
  [
    'a user called like the whole glob',
    'read_only_username_list = mon*',
    tcp('192.0.2.1', 'mon*'),
    'read_only_username_list',
  ],
  ['a certificate called like a glob', 'read_only_dn_list = CN=mon', tls('CN=*'), null],
  ['brackets, which are no glob', 'read_only_dn_list = CN=[ab]', tls('CN=a'), null],
  [
    'a backslash, which escapes nothing',
    String.raw`read_only_dn_list = CN=Doe\, John`,
    tls(String.raw`CN=Doe\, John`),
    'read_only_dn_list',
  ],
  [
    'two backslashes',
    String.raw`read_only_dn_list = CN=a\\b`,
    tls(String.raw`CN=a\\b`),
    'read_only_dn_list',
  ],
  ['a user in a name’s place', 'read_only_dn_list = alice', tls('CN=x', 'alice'), null],
  ['a user by name', 'read_only_users = prometheus', unix(1005), 'read_only_users'],
  ['a user by another name', 'read_only_users = alias', unix(1005), 'read_only_users'],
  [
    'a user by number',
    'read_only_users[] = 7\nread_only_users[] = 1005',
    unix(1005),
    'read_only_users',
  ],
  ['a number with zeros before it', 'read_only_users = 01005', unix(1005), 'read_only_users'],
  ['a user that is not there', 'read_only_users = nobody-there', unix(0), null],
  ['the star, which is no user', 'read_only_users = *', unix(1005), null],
  ['root, too', 'read_only_users = root', unix(0), 'read_only_users'],
  ['another user of the host', 'read_only_users = prometheus', unix(0), null],
  ['a UNIX user over TCP', 'read_only_users = prometheus', tcp('192.0.2.1', 'prometheus'), null],
  ['the group of the process', 'read_only_groups = 2001', unix(7, 2001), 'read_only_groups'],
  [
    'a supplementary group of the process',
    'read_only_groups = monitoring',
    unix(7, 7, [1, 2001]),
    'read_only_groups',
  ],
  [
    'a group by the databases, which the process has left',
    'read_only_groups = monitoring',
    unix(1005, 7),
    'read_only_groups',
  ],
  ['another group', 'read_only_groups = monitoring', unix(7, 7, [1, 2002]), null],
  ['a group that is not there', 'read_only_groups = no-group', unix(7), null],
  ['a group of the number of a user', 'read_only_groups = 1006', unix(1006, 1), null],
  ['an address', addresses('192.0.2.7'), tcp('192.0.2.7'), 'read_only_addresses'],
  ['another address', addresses('192.0.2.7'), tcp('192.0.2.70'), null],
  ['a network', addresses('192.0.2.0/24'), tcp('192.0.2.255'), 'read_only_addresses'],
  ['beside a network', addresses('192.0.2.0/25'), tcp('192.0.2.128'), null],
  [
    'a network written with an address in it',
    addresses('192.0.2.9/24'),
    tcp('192.0.2.1'),
    'read_only_addresses',
  ],
  ['all of IPv4', addresses('0.0.0.0/0'), tcp('203.0.113.9'), 'read_only_addresses'],
  ['all of IPv4, by IPv6', addresses('0.0.0.0/0'), tcp('2001:db8::1'), null],
  [
    'a second address',
    addresses('192.0.2.7', '2001:db8::/32'),
    tcp('2001:db8:7::1'),
    'read_only_addresses',
  ],
  ['beside a network of IPv6', addresses('2001:db8::/33'), tcp('2001:db8:8000::1'), null],
  [
    'an IPv6 address written otherwise',
    addresses('2001:DB8:0:0::1'),
    tcp('2001:db8::1'),
    'read_only_addresses',
  ],
  [
    'an IPv4 address in IPv6',
    addresses('192.0.2.0/24'),
    tcp('::ffff:192.0.2.7'),
    'read_only_addresses',
  ],
  [
    'the same in hexadecimal',
    addresses('192.0.2.0/24'),
    tcp('::ffff:c000:207'),
    'read_only_addresses',
  ],
  ['beside it', addresses('192.0.2.0/24'), tcp('::ffff:192.0.3.7'), null],
  [
    'IPv4 against a list in IPv6',
    addresses('::ffff:192.0.2.0/120'),
    tcp('192.0.2.7'),
    'read_only_addresses',
  ],
  ['beside that', addresses('::ffff:192.0.2.0/120'), tcp('192.0.3.7'), null],
  ['an IPv4 address at another place in IPv6', addresses('192.0.2.7'), tcp('::192.0.2.7'), null],
  [
    'a link-local address with its interface',
    addresses('fe80::/10'),
    tcp('fe80::1%eth0'),
    'read_only_addresses',
  ],
  ['an address over TLS', addresses('192.0.2.1'), tls('CN=x'), 'read_only_addresses'],
  ['a UNIX client, which has no address', addresses('0.0.0.0/0', '::/0'), unix(0), null],
  [
    'TCP of two listeners',
    'read_only_listeners = tcp tls',
    tcp('192.0.2.1'),
    'read_only_listeners',
  ],
  ['TLS of two listeners', 'read_only_listeners = tcp tls', tls('CN=x'), 'read_only_listeners'],
  ['UNIX beside two listeners', 'read_only_listeners = tcp tls', unix(0), null],
  ['the UNIX socket', 'read_only_listeners = unix', unix(0), 'read_only_listeners'],
];

describe('rights', () => {
  for (const [what, lines, client, because] of cases) {
    it(`${because === null ? 'are whole for' : 'end for'} ${what}`, () => {
      expect(under(lines, client)).to.deep.equal({ readOnly: because !== null, because });
    });
  }

  it('are those of the read-only socket, whatever is listed', () => {
    for (const lines of ['', 'read_only_users = prometheus']) {
      const client = { ...unix(1005), readOnly: true };
      expect(under(lines, client)).to.deep.equal({ readOnly: true, because: null });
    }
  });

  it('end where a database does not answer, and only then is it asked', () => {
    const databases = { userId: broken, groupId: broken, groupsOfUser: broken };
    for (const [lines, client] of [
      ['read_only_users = prometheus', unix(0)],
      ['read_only_groups = 2001', unix(0)],
    ] as const) {
      const { readOnly, because } = under(lines, client, databases);
      expect(readOnly).to.be.true;
      expect(because).to.match(/^read_only_(users|groups), which cannot be looked up: getpwnam_r/);
    }
    expect(under('read_only_users = 7', unix(0), databases).readOnly).to.be.false;
    expect(under('read_only_users = x', tcp('192.0.2.1'), databases).readOnly).to.be.false;
  });
});
