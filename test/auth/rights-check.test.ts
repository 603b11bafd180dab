import { expect } from 'chai';
import { inspectAccess } from '../../lib/auth/rights-check.js';
import type { Accounts } from '../../lib/auth/rights.js';
import { parseClusterIni } from '../../lib/config/cluster-ini.js';
import type { Configuration } from '../../lib/config/configuration.js';
import { parseConf } from '../../lib/config/grammar.js';
import { defaultPaths } from '../../lib/config/paths.js';
import { checkEntries } from '../../lib/config/settings.js';
import { NativeError } from '../../lib/native/error.js';

const accounts: Accounts = {
  userId: (name) => {
    if (name !== 'unreadable') return name === 'prometheus' ? 1005 : null;
    throw new NativeError('EIO', 'getpwnam_r', 'getpwnam_r failed for unreadable: i/o error');
  },
  groupId: (name) => (name === 'monitoring' ? 2001 : null),
  groupsOfUser: () => null,
};

/**
 * The warnings about lines of [access] beside a virtproxyd.conf, without their place, which is line
 * 2 but for lists.
 */
function warnings(conf: string, lines: string): string[] {
  const { entries } = parseConf(conf, 'v.conf');
  const {
    access,
    problems,
    lines: clusterLines,
  } = parseClusterIni(`[access]\n${lines}\n`, 'c.ini');
  expect(problems).to.deep.equal([]);
  const configuration = {
    conf: checkEntries(entries, 'v.conf', 'system').conf,
    access,
    clusterLines,
    paths: { ...defaultPaths('system', {}, null), clusterFile: 'c.ini' },
  } as Partial<Configuration> as Configuration;
  return inspectAccess(configuration, accounts).map((line) => {
    expect(line).to.match(/^c\.ini:2: \[access\] read_only_.*\.$/);
    return line.replace(/^c\.ini:2: \[access\] /, '');
  });
}

const tls = 'listen_tls = 1';
const cases: [what: string, conf: string, lines: string, says: RegExp[]][] = [
  ['nothing of an empty section', '', '', []],
  ['names without TLS', '', 'read_only_dn_list = *', [/can name nobody while listen_tls is 0/]],
  ['nothing of names with TLS', tls, 'read_only_dn_list = *', []],
  [
    'names that need not be shown',
    `${tls}\ntls_no_verify_certificate = 1`,
    'read_only_dn_list = *',
    [/evaded while tls_no_verify_certificate is 1/],
  ],
  [
    'user names without SASL',
    `${tls}\nauth_tcp = "sasl"\nauth_unix_ro = "sasl"`,
    'read_only_username_list = *',
    [/no listener for clients that may write has SASL/],
  ],
  [
    'nothing of user names with SASL over TLS',
    `${tls}\nauth_tls = "sasl"`,
    'read_only_username_list = *',
    [],
  ],
  [
    'nothing of user names with SASL over TCP',
    'listen_tcp = 1\nauth_tcp = "sasl"',
    'read_only_username_list = *',
    [],
  ],
  [
    'nothing of user names with SASL on the UNIX socket',
    'auth_unix_rw = "sasl"',
    'read_only_username_list = *',
    [],
  ],
  [
    'users there are none of',
    '',
    'read_only_users[] = prometheus\nread_only_users[] = prometeus\nread_only_users[] = *',
    [/names 'prometeus', but there is no such user/, /names '\*'/],
  ],
  ['nothing of numbers', '', 'read_only_users[] = 4242\nread_only_users[] = 0', []],
  [
    'users that cannot be looked up',
    '',
    'read_only_users = unreadable',
    [/cannot be looked up: getpwnam_r/],
  ],
  ['groups there are none of', '', 'read_only_groups = prometheus', [/no such group/]],
  [
    'addresses without a network listener',
    '',
    'read_only_addresses = ::/0',
    [/while listen_tcp and listen_tls are 0/],
  ],
  ['nothing of addresses with TCP', 'listen_tcp = 1', 'read_only_addresses = ::/0', []],
  [
    'listeners that are off',
    tls,
    'read_only_listeners = unix tcp tls',
    [/names tcp, but listen_tcp is 0/],
  ],
];

describe('the look at [access]', () => {
  for (const [what, conf, lines, says] of cases) {
    it(`tells ${what}`, () => {
      const found = warnings(conf, lines);
      expect(found).to.have.length(says.length);
      says.forEach((pattern, index) => expect(found[index]).to.match(pattern));
    });
  }
});
