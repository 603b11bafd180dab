import { availableParallelism } from 'node:os';
import { expect } from 'chai';
import { type ClusterFile, parseClusterIni } from '../../lib/config/cluster-ini.js';

const parse = (text: string): ClusterFile => parseClusterIni(text, 'c.ini');
const DEFAULTS = parse('');
const nobody = {
  read_only_dn_list: [],
  read_only_username_list: [],
  read_only_users: [],
  read_only_groups: [],
  read_only_addresses: [],
  read_only_listeners: [],
};

describe('virtproxyd-cluster.ini', () => {
  it('has defaults for everything', () => {
    expect(DEFAULTS).to.deep.equal({
      cluster: {
        workers: Math.min(availableParallelism(), 4),
        min_workers: 1,
        worker_idle_timeout: 60,
        worker_user: null,
        drain_timeout: 0,
        stop_timeout: 5,
        login_timeout: 30,
        open_timeout: 30,
        daemon_restart_timeout: 10,
        max_daemon_reopenings: 32,
        max_worker_memory: 0,
      },
      routes: {},
      metrics: { listen: null },
      log: { format: 'libvirt', audit: null },
      access: nobody,
      lines: {},
      problems: [],
      warnings: [],
    });
  });

  const ranges: [text: string, problem: RegExp | null][] = [
    ['workers = 3\nmin_workers = 3', null],
    ['workers = auto\nmin_workers = auto', null],
    ['workers = 2\nmin_workers = 3', /^c.ini:3: min_workers \(3\) must not be above workers \(2\)/],
    ['min_workers = 256', /^c.ini:2: min_workers \(256\) must not be above workers \(\d+\)/],
    ['min_workers = 0', /^c.ini:2: min_workers must be auto or a number from 1 to 256, not "0"/],
    ['workers = 0\nmin_workers = 200', /^c.ini:2: workers must be auto/],
  ];
  for (const [text, problem] of ranges) {
    it(`${problem === null ? 'takes' : 'refuses'} ${text.replace('\n', ', ')}`, () => {
      const { problems } = parse(`[cluster]\n${text}\n`);
      expect(problems).to.have.length(problem === null ? 0 : 1);
      if (problem !== null) expect(problems[0]?.message).to.match(problem);
    });
  }

  it('reads every section', () => {
    const text = `; head
[cluster]
workers = 3        ; three
drain_timeout=2.5
stop_timeout = '1'
max_worker_memory = 512M
[routes]
qemu = /run/libvirtd/libvirt-sock
storage = "/run/odd;name-sock"
default = /run/other
[metrics]
  listen = [::1]:9177
  [log]
format = json
audit = /var/log/audit
[cluster]
login_timeout = 10
[access]
read_only_dn_list[] = C=GB,O=Example,CN=Doe\\, John*
read_only_dn_list[]='CN=no;comment #1'
read_only_users = prometheus
read_only_users[] = "1005"
read_only_addresses = 192.0.2.0/24
read_only_listeners[] = tcp  tls
[cluster]
worker_user = virtproxyd
`;
    expect(parse(text)).to.deep.equal({
      cluster: {
        workers: 3,
        min_workers: 1,
        worker_idle_timeout: 60,
        worker_user: 'virtproxyd',
        drain_timeout: 2.5,
        stop_timeout: 1,
        login_timeout: 10,
        open_timeout: 30,
        daemon_restart_timeout: 10,
        max_daemon_reopenings: 32,
        max_worker_memory: 512 * 1024 ** 2,
      },
      routes: {
        qemu: '/run/libvirtd/libvirt-sock',
        storage: '/run/odd;name-sock',
        default: '/run/other',
      },
      metrics: { listen: '[::1]:9177' },
      log: { format: 'json', audit: '/var/log/audit' },
      access: {
        ...nobody,
        read_only_dn_list: ['C=GB,O=Example,CN=Doe\\, John*', 'CN=no;comment #1'],
        read_only_users: ['prometheus', '1005'],
        read_only_addresses: ['192.0.2.0/24'],
        read_only_listeners: ['tcp', 'tls'],
      },
      lines: {
        'cluster.workers': 3,
        'cluster.drain_timeout': 4,
        'cluster.stop_timeout': 5,
        'cluster.max_worker_memory': 6,
        'routes.qemu': 8,
        'routes.storage': 9,
        'routes.default': 10,
        'metrics.listen': 12,
        'log.format': 14,
        'log.audit': 15,
        'cluster.login_timeout': 17,
        'access.read_only_dn_list': 19,
        'access.read_only_users': 21,
        'access.read_only_addresses': 23,
        'access.read_only_listeners': 24,
        'cluster.worker_user': 26,
      },
      problems: [],
      warnings: [],
    });
  });

  const faults: [section: string, statement: string, sentence: RegExp][] = [
    ['cluster', 'workers = 0', /workers must be auto or a number from 1 to 256, not "0"/],
    ['cluster', 'workers = many', /workers must be auto/],
    ['cluster', 'workers =', /workers must be auto/],
    ['cluster', 'workers = true', /not "true"/],
    ['cluster', 'worker_user =', /worker_user must not be empty/],
    ['cluster', 'worker_user = 4294967295', /worker_user must be a name or a number below/],
    ['cluster', 'drain_timeout = -1', /seconds, not "-1"/],
    ['cluster', 'stop_timeout = 3000000', /seconds/],
    ['cluster', 'login_timeout = 0', /from 0.1/],
    ['cluster', 'open_timeout = null', /not "null"/],
    ['cluster', 'open_timeout = \'{"a":1}\'', /seconds/],
    ['cluster', 'max_worker_memory = 10M', /at least 64M/],
    ['cluster', 'max_worker_memory = 1T', /suffixes K, M and G/],
    ['cluster', 'max_worker_memory = 99999999999G', /suffixes K, M and G/],
    ['routes', 'qemu = run/sock', /absolute path, not "run\/sock"/],
    ['routes', `qemu = /${'s'.repeat(105)}`, /2 bytes too long/],
    ['routes', 'QEMU = /run/sock', /"QEMU" is not the name of a driver/],
    ['routes', '__proto__ = /run/sock', /not the name of a driver/],
    ['routes', 'qemu[] = /run/sock', /not the name of a driver/],
    ['metrics', 'listen = 9177', /ADDRESS:PORT/],
    ['metrics', 'listen = ::1:9177', /ADDRESS:PORT/],
    ['metrics', 'listen = [a:b]:9177', /ADDRESS:PORT/],
    ['metrics', 'listen = localhost:99999', /port from 0 to 65535/],
    ['log', 'format = xml', /libvirt or json, not "xml"/],
    ['log', 'audit = audit.log', /absolute path/],
    ['access', 'read_only_dn_list =', /must not be empty/],
    ['access', "read_only_username_list = ''", /must not be empty/],
    ['access', 'read_only_dn_list = CN=a#1', /value with ; or #/],
    ['access', 'read_only_users = root ; the boss', /value with ; or #/],
    ['access', 'read_only_dn_list = "CN=a\\, b"', /odd quotes/],
    ['access', 'read_only_users = "root', /odd quotes/],
    ['access', 'read_only_users = 4294967295', /below 4294967295/],
    ['access', 'read_only_users = root, prometheus', /one name or number on each line/],
    ['access', 'read_only_groups = a:b', /one name or number/],
    ['access', 'read_only_addresses = 192.0.2.0/33', /network such as .*, not "192.0.2.0\/33"/],
    ['access', 'read_only_addresses = 192.0.2.0/', /IP address/],
    ['access', 'read_only_addresses = 192.0.2.0/8.5', /IP address/],
    ['access', 'read_only_addresses = 192.0.2', /IP address/],
    ['access', 'read_only_addresses = 192.0.2.1 192.0.2.2', /IP address/],
    ['access', 'read_only_addresses = host.example', /IP address/],
    ['access', 'read_only_addresses = ::1/129', /IP address/],
    ['access', 'read_only_addresses = fe80::1%eth0', /IP address/],
    ['access', 'read_only_listeners = tcp,tls', /some of unix, tcp, tls, not "tcp,tls"/],
    ['access', 'read_only_listeners = admin', /some of unix, tcp, tls/],
    [
      'access',
      'read_only_user = root',
      /\[access\] has no key read_only_user, but only read_only_dn/,
    ],
    ['access', '__proto__ = root', /has no key __proto__/],
  ];
  for (const [section, statement, sentence] of faults) {
    it(`refuses ${statement.slice(0, 40)} in [${section}]`, () => {
      const { problems, warnings } = parse(`# head\n\n[${section}]\r\n${statement}\r\n`);
      expect(warnings).to.deep.equal([]);
      expect(problems).to.have.length(1);
      expect(problems[0]).to.include({ code: 'bad-value', line: 4 });
      expect(problems[0]?.key).to.equal(statement.split(' ')[0]);
      expect(problems[0]?.message)
        .to.match(sentence)
        .and.match(/^c\.ini:4: .*\.$/);
    });
  }

  it('takes a list apart or together, and no second line without brackets', () => {
    const text =
      '[access]\nread_only_users[] = a\nread_only_users = b\nread_only_users[] = :\nread_only_users[] = c\n';
    const { access, problems, lines } = parse(text);
    expect(access.read_only_users).to.deep.equal(['a', 'c']);
    expect(lines).to.deep.equal({ 'access.read_only_users': 2 });
    expect(problems.map(({ message }) => message)).to.deep.equal([
      'c.ini:3: read_only_users is set a second time: write each value of a list as read_only_users[] = VALUE.',
      'c.ini:4: read_only_users must be one name or number on each line, not ":".',
    ]);
  });

  for (const line of ['workers', '= 3', '[cluster', '[cluster] ; comment', '[[cluster]]']) {
    it(`refuses the line ${line}`, () => {
      const { problems } = parse(`[cluster]\n${line}\n`);
      expect(problems.map(({ code, line: number }) => [code, number])).to.deep.equal([
        ['syntax', 2],
      ]);
    });
  }

  it('reports every mistake at once', () => {
    const { problems } = parse('[cluster]\nworkers = 0\nlogin_timeout\n[routes]\nqemu = x\n');
    expect(problems.map(({ line }) => line)).to.have.members([2, 3, 5]);
  });

  it('ignores unknown sections and keys with a warning, whatever the ini package makes of them', () => {
    const { warnings, ...rest } = parse(`workers = 9
[cluster]
worker = 3
workers[] = 4
__proto__ = 5
constructor = 6
[cluster.workers]
a = 1
[__proto__]
b = 2
[__proto__.cluster]
workers = 7
[Cluster]
workers = 8
[cluster]
workers = 2
workers = 3
`);
    expect(rest).to.deep.equal({
      cluster: { ...DEFAULTS.cluster, workers: 2 },
      routes: {},
      metrics: DEFAULTS.metrics,
      log: DEFAULTS.log,
      access: nobody,
      lines: { 'cluster.workers': 16 },
      problems: [],
    });
    expect(warnings).to.deep.equal([
      'c.ini:1: workers stands before any section and is ignored.',
      'c.ini:3: The unknown key worker in [cluster] is ignored.',
      'c.ini:4: The unknown key workers[] in [cluster] is ignored.',
      'c.ini:5: The unknown key __proto__ in [cluster] is ignored.',
      'c.ini:6: The unknown key constructor in [cluster] is ignored.',
      'c.ini:7: The unknown section [cluster.workers] is ignored.',
      'c.ini:9: The unknown section [__proto__] is ignored.',
      'c.ini:11: The unknown section [__proto__.cluster] is ignored.',
      'c.ini:13: The unknown section [Cluster] is ignored.',
      'c.ini:17: workers is set a second time; the value of line 16 counts.',
    ]);
  });
});
