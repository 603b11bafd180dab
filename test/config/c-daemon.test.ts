import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseConf } from '../../lib/config/grammar.js';
import { sampleConf } from '../../lib/config/render.js';
import { checkEntries } from '../../lib/config/settings.js';

// libvirtd reads the same grammar and keys. This last key that it looks at has a wrong type, so that it never starts:
// the complaint about it shows that everything before was accepted.
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

  /** `accepted`, `refused`, or `refused in line N`, in which C names lines for syntax errors only. */
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
    const [fault] = checkEntries(entries, 'f', 'system').problems;
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
