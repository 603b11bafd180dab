import { expect } from 'chai';
import { parseConf } from '../../lib/config/grammar.js';
import { CONF_KEYS, type ConfKey, KEYS, rowOf } from '../../lib/config/keys.js';
import type { Mode } from '../../lib/config/paths.js';
import { type CheckedSettings, checkEntries } from '../../lib/config/settings.js';

const check = (text: string, mode: Mode = 'system'): CheckedSettings => {
  const { entries, problems } = parseConf(text, 'v.conf');
  expect(problems).to.deep.equal([]);
  return checkEntries(entries, 'v.conf', mode);
};

describe('virtproxyd.conf keys', () => {
  it('gives every key a section', () => {
    expect(CONF_KEYS).to.have.members(Object.keys(KEYS));
  });

  it('has the defaults of system mode', () => {
    const { conf, warnings } = check('');
    expect(warnings).to.deep.equal([]);
    expect(conf).to.deep.include({
      listen_tls: false,
      listen_tcp: false,
      tls_port: '16514',
      tcp_port: '16509',
      listen_addr: null,
      unix_sock_group: null,
      unix_sock_ro_perms: '0777',
      unix_sock_rw_perms: '0777',
      unix_sock_admin_perms: '0700',
      unix_sock_dir: null,
      auth_unix_ro: 'polkit',
      auth_unix_rw: 'polkit',
      auth_tcp: 'sasl',
      auth_tls: 'none',
      tcp_min_ssf: 56,
      tls_allowed_dn_list: null,
      sasl_allowed_username_list: null,
      max_clients: 5000,
      max_queued_clients: 1000,
      max_anonymous_clients: 20,
      max_client_requests: 5,
      admin_max_clients: 5000,
      admin_max_queued_clients: 20,
      log_level: 3,
      audit_level: 1,
      host_uuid_source: 'smbios',
      keepalive_interval: 5,
      keepalive_count: 5,
    });
    expect(Object.keys(conf)).to.have.members(CONF_KEYS);
  });

  it('has the defaults of session mode', () => {
    expect(check('', 'session').conf).to.deep.include({
      auth_unix_ro: 'none',
      auth_unix_rw: 'none',
      unix_sock_rw_perms: '0700',
    });
  });

  it('opens the read-write socket to everybody only behind polkit, unless told to', () => {
    const perms = (text: string, mode?: Mode) => check(text, mode).conf.unix_sock_rw_perms;
    expect(perms('auth_unix_rw = "none"')).to.equal('0700');
    expect(perms('auth_unix_rw = "sasl"')).to.equal('0700');
    expect(perms('auth_unix_rw = "polkit"', 'session')).to.equal('0777');
    expect(perms('auth_unix_rw = "none"\nunix_sock_rw_perms = "0770"')).to.equal('0770');
  });

  it('takes the values of the file', () => {
    const { conf, lines } = check(
      'listen_tcp = 1\nkeepalive_interval = -1\ntls_allowed_dn_list = []\n' +
        'sasl_allowed_username_list = [ "a", "b*" ]\ntls_port = "libvirt-tls"\nlog_filters = ""\n',
    );
    expect(conf).to.deep.include({
      listen_tcp: true,
      keepalive_interval: -1,
      tls_allowed_dn_list: [],
      sasl_allowed_username_list: ['a', 'b*'],
      tls_port: 'libvirt-tls',
      log_filters: '',
    });
    expect([...lines]).to.deep.include(['keepalive_interval', 2]);
  });

  const wrongTypes = {
    bool: ['"1"', '-1', '[]'],
    uint: ['"1"', '-1', '[]'],
    int: ['"1"', '[]'],
    string: ['1', '[]', '[ "a" ]'],
    port: ['16509', '[]'],
    enum: ['1', '[ "none" ]'],
    'string-list': ['"a"', '1', '[ 1 ]', '[ "a", [ "b" ] ]'],
  } as const;
  for (const key of CONF_KEYS.filter((name) => !rowOf(name).unread)) {
    it(`refuses values of another type for ${key}`, () => {
      for (const value of wrongTypes[rowOf(key).type]) {
        const [problem] = check(`# head\n${key} = ${value}`).problems;
        expect(problem).to.include({ code: 'wrong-type', file: 'v.conf', line: 2, key });
        expect(problem?.message).to.match(
          new RegExp(`^v\\.conf:2: .* expected for key ${key}, but the value is `),
        );
      }
    });
  }

  const badValues: [statement: string, sentence: RegExp][] = [
    ['listen_tls = 2', /listen_tls must be 0 or 1, not 2/],
    ['max_clients = 4294967296', /max_clients must be from 0 to 4294967295/],
    ['max_workers = 0', /max_workers must be from 1/],
    ['keepalive_interval = -2147483649', /keepalive_interval must be from -2147483648/],
    ['log_level = 5', /log_level must be from 0 to 4/],
    ['tcp_min_ssf = 56', /minimum SSF levels lower than 112 are not supported/],
    ['auth_unix_rw = "kerberos"', /must be "none" or "sasl" or "polkit", not "kerberos"/],
    ['auth_tcp = "polkit"', /polkit works on UNIX sockets only/],
    ['auth_tls = "polkit"', /polkit works on UNIX sockets only/],
    ['unix_sock_ro_perms = "0999"', /octal/],
    ['unix_sock_rw_perms = "rwx"', /octal/],
    ['unix_sock_rw_perms = ""', /octal/],
    ['unix_sock_admin_perms = "0777 "', /octal/],
    ['unix_sock_admin_perms = "20000000000"', /octal/],
    ['unix_sock_group = ""', /must not be empty/],
    [`unix_sock_dir = "/${'d'.repeat(100)}"`, /13 bytes too long/],
    ['ca_file = "cacert.pem"', /absolute path/],
    ['tcp_port = "65536"', /port/],
    ['tls_port = ""', /port/],
    ['tls_port = "1 2"', /port/],
    ['listen_addr = "a b"', /IP address or a host name/],
    ['host_uuid = "nonsense"', /UUID/],
    ['host_uuid = "6f2c1a5-28f0e-4c4b-9d3a-0b7e5c1d2e48"', /UUID/],
    ['host_uuid = "6f2c1a528f0e4c4b9d3a0b7e5c1d2e48-"', /UUID/],
    ['host_uuid = "00000000-0000-0000-0000-000000000000"', /one digit/],
    ['host_uuid_source = "dmi"', /"smbios" or "machine-id"/],
    ['log_filters = "1:"', /LEVEL:MATCH/],
    ['log_outputs = "3:tape"', /LEVEL:stderr/],
    ['log_outputs = "3:stderr:x"', /LEVEL:stderr/],
    ['log_outputs = "3:file:"', /LEVEL:file:PATH/],
  ];
  for (const [statement, sentence] of badValues) {
    it(`refuses ${statement.slice(0, 50)}`, () => {
      const [problem, ...others] = check(statement).problems;
      expect(others).to.deep.equal([]);
      expect(problem).to.include({ code: 'bad-value', line: 1, key: statement.split(' ')[0] });
      expect(problem?.message)
        .to.match(sentence)
        .and.match(/^v\.conf:1: .*\.$/);
    });
  }

  const goodValues = [
    'listen_addr = "::1"',
    'listen_addr = "fe80::1%eth0"',
    'listen_addr = "host-1.example.org"',
    'tcp_port = "0"',
    'unix_sock_ro_perms = "770"',
    'host_uuid_source = "machine-id"',
    'tcp_min_ssf = 112',
    'log_filters = "1:qemu 4:util"',
  ];
  for (const statement of goodValues) {
    it(`takes ${statement}`, () => expect(check(statement).problems).to.deep.equal([]));
  }

  /** What C's daemon starts with, as the value that counts, and what is warned of. */
  const lenient: [statement: string, value: unknown, warning: RegExp | null][] = [
    ['log_level = 0', 3, null],
    ['unix_sock_ro_perms = "00777"', '0777', null],
    ['unix_sock_ro_perms = " +770"', '0770', /which means "0770"/],
    ['unix_sock_ro_perms = "0"', '0000', /which means "0000"/],
    ['unix_sock_rw_perms = "7"', '0007', /which means "0007"/],
    ['unix_sock_admin_perms = "1777"', '0777', /which means "0777"/],
    ['unix_sock_admin_perms = "-1"', '0777', /which means "0777"/],
    ['unix_sock_group = "107"', '107', null],
    ['unix_sock_group = "+107"', '+107', null],
    ['unix_sock_group = "-107"', '-107', /which means the group 4294967189/],
    ['unix_sock_group = "-1"', '-1', /leaves the sockets the group of the daemon/],
    ['unix_sock_dir = "run"', '/srv/run', /which means "\/srv\/run"/],
    ['unix_sock_dir = ""', '/', /which means "\/"/],
    ['tcp_port = "00016509"', '00016509', null],
    ['tcp_min_ssf = 100001', 100_001, /nobody can log in/],
    ['access_drivers = ["polkit", "none"]', ['polkit', 'none'], /has no effect/],
    ['access_drivers = ["nop"]', ['nop'], /names "nop", which no daemon of libvirt knows/],
    ['max_clients = 0', 0, /no client is let in/],
    ['admin_max_clients = 0', 0, /no client is let in/],
    ['max_client_requests = 0', 1, /1 counts instead/],
    ['admin_max_client_requests = 0', 1, /1 counts instead/],
    ['max_queued_clients = 0', 0, null],
    ['max_anonymous_clients = 0', 0, null],
    ['admin_max_workers = 0', 0, /has no effect/],
    ['keepalive_interval = -5', -5, null],
    ['keepalive_interval = -2147483648', -2_147_483_648, null],
    ['admin_keepalive_interval = 0', 0, null],
    ['keepalive_required = "x"', false, /has no effect/],
    ['admin_keepalive_required = [ 1 ]', false, /has no effect/],
    ['audit_level = 2', 2, /has no effect/],
    ['host_uuid = "6f2c1a528f0e4c4b9d3a0b7e5c1d2e48"', /.*/, /has no effect/],
    ['host_uuid = " -6f2c1a52--8f0e 4c4b-9d3a0b7e5c1d2e48 "', /.*/, /has no effect/],
    ['log_filters = "01:foo:bar 1:+a"', '1:foo 1:a', null],
    ['log_outputs = " +1:stderr  02:syslog: "', '1:stderr 2:syslog:virtproxyd', null],
    ['log_outputs = "1:file:v.log"', '1:file:/srv/v.log', /which means "1:file:\/srv\/v\.log"/],
  ];
  for (const [statement, value, warning] of lenient) {
    it(`takes ${statement}${warning === null ? '' : ', with a warning'}`, () => {
      const { entries } = parseConf(`# head\n${statement}`, 'v.conf');
      const { conf, problems, warnings } = checkEntries(entries, 'v.conf', 'system', '/srv');
      const key = statement.split(' ')[0] as ConfKey;
      expect(problems).to.deep.equal([]);
      if (value instanceof RegExp) expect(conf[key]).to.match(value);
      else expect(conf[key]).to.deep.equal(value);
      if (warning === null) expect(warnings).to.deep.equal([]);
      else
        expect(warnings.at(-1))
          .to.match(warning)
          .and.match(new RegExp(`^v\\.conf:2: ${key} .*\\.$`));
    });
  }

  it('warns of unknown keys, of keys set twice and of keys without effect', () => {
    const { conf, warnings } = check(
      'mdns_adv = 1\nmax_clients = 50\nmax_clients = "x"\nmin_workers = 7\nconstructor = 1\n',
    );
    expect(conf.max_clients).to.equal(50);
    expect(conf.min_workers).to.equal(7);
    expect(warnings).to.deep.equal([
      'v.conf:1: The unknown key mdns_adv is ignored.',
      'v.conf:3: max_clients is set a second time; the value of line 2 counts.',
      'v.conf:4: min_workers has no effect on virtproxyd: it counts threads of the C daemon, ' +
        'while workers in virtproxyd-cluster.ini counts processes.',
      'v.conf:5: The unknown key constructor is ignored.',
    ]);
  });
});
