import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readConfiguration } from '../../lib/config/configuration.js';
import { ConfigError, isInForce } from '../../lib/config/errors.js';
import { parseConf } from '../../lib/config/grammar.js';
import { sampleConf } from '../../lib/config/render.js';
import { checkEntries } from '../../lib/config/settings.js';
import { planListeners } from '../../lib/primary/listeners/listener-plan.js';
import { Namespace } from '../peers/namespace.js';
import { until } from '../peers/waiting.js';

// libvirtd reads the same grammar and keys. This last key that it looks at has a wrong type, so
// that it never starts: the complaint about it shows that everything before was accepted.
const LAST = 'ovs_timeout = "x"\n';

describe("the C daemon's view of virtproxyd.conf (needs libvirtd)", () => {
  let directory: string;

  before(function () {
    if (spawnSync('libvirtd', ['--version']).status !== 0) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'virtproxyd-conf-'));
  });
  after(() => {
    if (directory) rmSync(directory, { recursive: true });
  });

  /**
   * `accepted`, `refused`, or `refused in line N`, in which C names lines for syntax errors only.
   */
  const askLibvirtd = (text: string): string => {
    const file = join(directory, 'libvirtd.conf');
    writeFileSync(file, text);
    const args = ['-f', file, '-p', join(directory, 'pid'), '-t', '1'];
    const { status, stderr } = spawnSync('libvirtd', args, { encoding: 'utf8', timeout: 10_000 });
    expect(status, stderr).to.equal(1);
    if (stderr.includes("'ovs_timeout'")) return 'accepted';
    const line = new RegExp(`${file}:([0-9]+): `).exec(stderr)?.[1];
    return line === undefined ? 'refused' : `refused in line ${line}`;
  };
  const askOurs = (text: string): string => {
    const { entries, problems } = parseConf(text, 'f');
    const [syntax] = problems;
    if (syntax !== undefined) return `refused in line ${syntax.line ?? '?'}`;
    const { conf, problems: faults } = checkEntries(entries, 'f', 'system');
    const fault = faults.find((problem) => isInForce(problem, conf));
    return fault?.key === 'ovs_timeout' ? 'accepted' : 'refused';
  };

  const texts = [
    'listen_tcp = 1 ; listen_tls = 0\n',
    'listen_tcp = 1 # note\n\n  # more\n \t\n',
    'listen_tcp=+1\r\nlisten_tls\t=\t0\r\n',
    'access_drivers = [ "a",\n\n"b" , ]\n',
    'access_drivers = [\n]\n',
    'log_filters = """\n1:a\n"""\n',
    'log_filters = \'1:"a"\'\n',
    'log_filters = "1:\\a"\n',
    'log_filters = "1:\\"a"\n',
    'listen_tcp = 1\nlisten_tcp = "x"\n',
    'listen_tcp = "x"\nlisten_tcp = 1\n',
    'unknown = [ 1, [ "x" ], """y""" ]\n',
    'listen_tcp 1\n',
    'listen_tcp =\n1\n',
    'listen_tcp = 1 listen_tls = 1\n',
    'listen_tcp = 1x\n',
    'max_clients = 0x10\n',
    '9a = 1\n',
    '_a = 1\n',
    'a.b = 1\n',
    '\n\nfoo = bar\n',
    'access_drivers = [ # note\n"a" ]\n',
    'access_drivers = [ "a"\n"b" ]\n',
    'access_drivers = [ , "a" ]\n',
    "tls_port = 'a\nlisten_tcp = 1\n",
    'listen_tcp = 2\n',
    'listen_tcp = -1\n',
    'tls_port = 16514\n',
    'access_drivers = "a"\n',
    'access_drivers = [ 1 ]\n',
    'max_clients = 4294967296\n',
    'keepalive_interval = -1\nkeepalive_count = 0\n',
    'keepalive_count = -1\n',
    'tcp_min_ssf = 111\n',
    'tcp_min_ssf = 100001\n',
    'tcp_min_ssf = 112\n',
    'auth_tcp = "foo"\n',
    'max_workers = 0\n',
  ];
  for (const text of texts) {
    it(`agrees on ${JSON.stringify(text)}`, () => {
      expect(askOurs(text + LAST)).to.equal(askLibvirtd(text + LAST));
    });
  }

  it('accepts our sample with all keys set', () => {
    const all = sampleConf().replaceAll(/^#(?=[a-z_]+ = )/gm, '');
    expect(askLibvirtd(all.replace(/^ovs_timeout = .*\n/m, LAST))).to.equal('accepted');
  });
});

/** Whether libvirtd starts with a statement, as far as its sockets; ours does wherever it does. */
const starts: [statement: string, libvirtd: boolean][] = [
  ['ca_file = ""', true],
  ['key_file = "/k"\ncert_file = "/c"', true],
  ['crl_file = ""', true],
  ['tls_priority = ""', true],
  ['tcp_port = ""', true],
  ['tls_port = "99999"', true],
  ['listen_addr = ""', true],
  ['auth_tcp = "polkit"', true],
  ['auth_tls = "polkit"', true],
  ['log_level = 0', true],
  ['log_level = 5', false],
  ['unix_sock_ro_perms = "00777"', true],
  ['unix_sock_ro_perms = "0"', true],
  ['unix_sock_rw_perms = " +7"', true],
  ['unix_sock_rw_perms = "-1"', true],
  ['unix_sock_rw_perms = "17777777777"', true],
  ['unix_sock_rw_perms = "20000000000"', false],
  ['unix_sock_rw_perms = "0777 "', false],
  ['unix_sock_admin_perms = ""', false],
  ['unix_sock_group = "107"', true],
  ['unix_sock_group = "+107"', true],
  ['unix_sock_group = "-107"', true],
  ['unix_sock_group = " 107"', true],
  ['unix_sock_group = "++1"', true],
  ['unix_sock_group = "107 "', false],
  ['unix_sock_group = "+root"', false],
  ['unix_sock_group = "--1"', false],
  ['unix_sock_group = "99999999999"', false],
  ['host_uuid = "6f2c1a528f0e4c4b9d3a0b7e5c1d2e48"', true],
  ['host_uuid = " -6f2c1a52--8f0e 4c4b-9d3a0b7e5c1d2e48 "', true],
  ['host_uuid = "6f2c1a5-28f0e-4c4b-9d3a-0b7e5c1d2e48"', false],
  ['host_uuid = "ffffffff-ffff-ffff-ffff-ffffffffffff"', false],
  ['host_uuid_source = ""', false],
  ['max_clients = 0\nmax_anonymous_clients = 0', true],
  ['max_clients = 0', false],
  ['max_client_requests = 0', true],
  ['admin_max_clients = 0', true],
  ['admin_max_workers = 0', true],
  ['max_workers = 0', false],
  ['keepalive_interval = -2147483648', true],
  ['keepalive_required = "x"', true],
  ['admin_keepalive_required = [ ]', true],
  ['audit_level = 3', true],
  ['log_filters = "+1:foo:bar 02:+x"', true],
  ['log_filters = "1:+"', false],
  ['log_filters = "0:foo"', false],
  ['log_outputs = " 01:stderr  2:syslog: "', true],
  ['log_outputs = "1:file:v.log"', true],
  ['log_outputs = "1:stderr:x"', false],
];

describe('what libvirtd starts with (needs libvirtd)', function () {
  this.timeout(60_000);
  let directory: string;
  let file: string;
  let namespace: Namespace | null = null;

  before(async function () {
    if (spawnSync('libvirtd', ['--version']).status !== 0) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'virtproxyd-starts-'));
    mkdirSync(join(directory, 'etc'));
    file = join(directory, 'etc/c.conf');
    const script = 'cd /run && exec libvirtd -f /etc/libvirt/c.conf -p "/run/$$.pid" -t 60';
    namespace = await Namespace.open({ directory, command: ['sh', '-c', script] });
  });
  after(async () => {
    await namespace?.close();
    if (directory) rmSync(directory, { recursive: true });
  });

  const libvirtdStarts = async (): Promise<boolean> => {
    const pid = await namespace!.start();
    const socket = `/proc/${namespace!.pid}/root/run/libvirt/libvirt-admin-sock`;
    const ended = (): boolean => {
      try {
        return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
      } catch {
        return true;
      }
    };
    const what = 'libvirtd with its sockets, or its end';
    const listening = await until(() => (ended() ? 'no' : existsSync(socket) ? 'yes' : null), {
      what,
    });
    if (listening === 'no') return false;
    process.kill(pid, 'SIGKILL');
    await until(() => ended(), { what: 'the end of libvirtd' });
    rmSync(socket);
    return true;
  };
  const oursStarts = async (): Promise<boolean> => {
    try {
      const options = { mode: 'system', configFile: file, env: {}, homeDirectory: '/' } as const;
      return (await planListeners(readConfiguration(options), [])).length > 0;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      return false;
    }
  };

  for (const [statement, expected] of starts) {
    it(`${expected ? 'agrees to start' : 'agrees not to start'} with ${JSON.stringify(statement)}`, async () => {
      writeFileSync(file, `listen_tls = 0\nlisten_tcp = 0\n${statement}\n`);
      expect(await libvirtdStarts(), 'libvirtd').to.equal(expected);
      expect(await oursStarts(), 'ours').to.equal(expected);
    });
  }

  it('starts with an access driver nobody knows, which libvirtd does not', async () => {
    writeFileSync(file, 'listen_tls = 0\naccess_drivers = [ "nop" ]\n');
    expect(await libvirtdStarts(), 'libvirtd').to.equal(false);
    expect(await oursStarts(), 'ours').to.equal(true);
  });
});
