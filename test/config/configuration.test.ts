import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { expect } from 'chai';
import { inspectPriority } from '../../lib/auth/tls-priority-check.js';
import { checkConfiguration } from '../../lib/config/check.js';
import {
  type Configuration,
  type ConfigurationOptions,
  readConfiguration,
} from '../../lib/config/configuration.js';
import { ConfigError } from '../../lib/config/errors.js';
import { underActivation } from '../../lib/primary/listeners/listener-plan.js';

describe('configuration', () => {
  let directory: string;
  let confFile: string;
  let clusterFile: string;
  let options: ConfigurationOptions;

  const write = (conf: string, cluster?: string): void => {
    writeFileSync(confFile, conf);
    if (cluster !== undefined) writeFileSync(clusterFile, cluster);
  };
  const fault = (given: Partial<ConfigurationOptions> = {}): ConfigError => {
    try {
      readConfiguration({ ...options, ...given });
    } catch (error) {
      if (error instanceof ConfigError) return error;
      throw error;
    }
    throw new Error('the configuration was accepted');
  };
  const warningsOf = (conf: string, given: Partial<ConfigurationOptions> = {}): string => {
    write(conf);
    return readConfiguration({ ...options, ...given }).warnings.join('\n');
  };

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'virtproxyd-config-'));
    mkdirSync(join(directory, 'libvirt'));
    confFile = join(directory, 'libvirt/virtproxyd.conf');
    clusterFile = join(directory, 'libvirt/virtproxyd-cluster.ini');
    const env = { XDG_CONFIG_HOME: directory, XDG_RUNTIME_DIR: directory };
    options = { mode: 'session', env, homeDirectory: directory };
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('does without the default files', () => {
    const configuration = readConfiguration(options);
    expect(configuration).to.deep.include({ confFile: null, clusterFile: null, warnings: [] });
    expect(configuration.conf.max_clients).to.equal(5000);
    expect(configuration.paths.configFile).to.equal(confFile);
  });

  it('reads both files into plain data', () => {
    write('max_clients = 30\nunix_sock_dir = "/run/x"\n', '[routes]\nqemu = /run/q\n');
    const configuration = readConfiguration(options);
    expect(configuration).to.deep.include({ mode: 'session', confFile, clusterFile });
    expect(configuration.conf.max_clients).to.equal(30);
    expect(configuration.routes).to.deep.equal({ qemu: '/run/q' });
    expect(configuration.paths).to.include({
      runDirectory: '/run/x',
      daemonDirectory: join(directory, 'libvirt'),
      pidFile: join(directory, 'libvirt/virtproxyd.pid'),
    });
    const copy = JSON.parse(JSON.stringify(configuration)) as Configuration;
    expect(copy).to.deep.equal(configuration);
  });

  it('takes a relative file from the command line, and the cluster file beside it', () => {
    write('', '[cluster]\nworkers = 2\n');
    const other = join(directory, 'libvirt/other.conf');
    writeFileSync(other, 'max_clients = 40\n');
    const configuration = readConfiguration({ ...options, configFile: relative('.', other) });
    expect(configuration).to.include({ confFile: other, clusterFile });
    expect(configuration.paths.configFile).to.equal(other);
    expect(configuration.conf.max_clients).to.equal(40);
    expect(configuration.cluster.workers).to.equal(2);
  });

  it('refuses a given file that is missing or a directory, by its name', () => {
    const missing = join(directory, 'none.conf');
    expect(fault({ configFile: missing })).to.include({
      code: 'unreadable',
      file: missing,
      line: null,
      message: `${missing}: The configuration file cannot be read: there is no such file.`,
    });
    expect(fault({ clusterFile: missing })).to.include({ code: 'unreadable', file: missing });
    expect(fault({ configFile: directory }).message).to.match(/it is a directory/);
  });

  it('refuses a default file that cannot be read (not checked for root, who can read all)', function () {
    if (process.getuid?.() === 0) this.skip();
    write('');
    chmodSync(confFile, 0);
    expect(fault().message).to.equal(
      `${confFile}: The configuration file cannot be read: permission is denied.`,
    );
  });

  it('reports all mistakes of both files, each with file, line and key', () => {
    write('listen_tcp = "yes"\nmax_clients = 10\n\nauth_tls "none"\n', '[cluster]\nworkers = 0\n');
    const { problems, message, code, file, line, key } = fault();
    expect(problems.map((each) => [each.file, each.line, each.key, each.code])).to.deep.equal([
      [confFile, 4, 'auth_tls', 'syntax'],
      [confFile, 1, 'listen_tcp', 'wrong-type'],
      [clusterFile, 2, 'workers', 'bad-value'],
    ]);
    expect(message.split('\n')).to.have.length(3);
    expect([code, file, line, key]).to.deep.equal(['syntax', confFile, 4, 'auth_tls']);
  });

  it('refuses fewer clients than anonymous clients', () => {
    write('# few\nmax_clients = 10\n');
    expect(fault()).to.include({ code: 'conflict', line: 2, key: 'max_clients' });
    write('max_clients = 10\nmax_anonymous_clients = 10\n');
    expect(readConfiguration(options).warnings).to.deep.equal([]);
    write('max_anonymous_clients = 5001\n');
    expect(fault().message).to.match(/max_clients \(5000\) must not be below .* \(5001\)/);
    write('max_clients = "x"\nmax_anonymous_clients = 5001\n');
    expect(fault().problems).to.have.length(1);
  });

  it('refuses one or two of the TLS files, and takes all three', () => {
    write('cert_file = "/c"\nlisten_tls = 1\n');
    expect(fault()).to.include({ code: 'conflict', line: 1, key: 'cert_file' });
    expect(fault().message).to.match(/key_file and ca_file is missing/);
    write('cert_file = "/c"\nkey_file = "/k"\nca_file = "/a"\ncrl_file = "/l"\n');
    expect(readConfiguration(options).conf.ca_file).to.equal('/a');
    write('crl_file = "/l"\n');
    expect(readConfiguration(options).conf.crl_file).to.equal('/l');
  });

  const needing: [listener: 'listen_tcp' | 'listen_tls', statement: string, sentence: RegExp][] = [
    ['listen_tls', 'ca_file = ""', /ca_file must be an absolute path/],
    ['listen_tls', 'crl_file = ""', /crl_file must be an absolute path/],
    ['listen_tls', 'cert_file = "servercert.pem"', /cert_file must be an absolute path/],
    ['listen_tls', 'key_file = "/k"\ncert_file = "/c"', /ca_file is missing/],
    ['listen_tls', 'tls_priority = ""', /tls_priority must not be empty/],
    ['listen_tls', 'tls_port = "99999"', /tls_port must be a port/],
    ['listen_tls', 'listen_addr = ""', /listen_addr must be an IP address/],
    [
      'listen_tls',
      'auth_tls = "polkit"',
      /auth_tls must be .* \(polkit works on UNIX sockets only/,
    ],
    ['listen_tcp', 'tcp_port = ""', /tcp_port must be a port/],
    ['listen_tcp', 'listen_addr = "a b"', /listen_addr must be an IP address/],
    [
      'listen_tcp',
      'auth_tcp = "polkit"',
      /auth_tcp must be .* \(polkit works on UNIX sockets only/,
    ],
  ];
  for (const [listener, statement, sentence] of needing) {
    it(`warns of ${statement.replace('\n', ', ')} without ${listener}, and refuses it with`, () => {
      const key = statement.split(' ')[0] ?? '';
      write(`${statement}\n`);
      const configuration = readConfiguration(options);
      expect(configuration.warnings).to.have.length(1);
      expect(configuration.warnings[0])
        .to.match(sentence)
        .and.match(
          /^.*virtproxyd\.conf:1: .* It has no effect while listen_\w+ (is|and listen_tls are) 0/,
        );
      expect(checkConfiguration(options).text).to.include(
        `warning: ${configuration.warnings[0]}\n`,
      );
      const activated = [{ role: listener === 'listen_tcp' ? 'tcp' : 'tls', name: 'a' }] as const;
      expect(() => underActivation(configuration, activated))
        .to.throw(ConfigError, sentence)
        .with.include({ line: 1, key });
      expect(underActivation(configuration, [{ role: 'rw', name: 'a' }]).mode).to.equal('session');
      write(`${statement}\n${listener} = 1\n`);
      expect(fault().message).to.match(sentence);
      expect(fault()).to.include({ line: 1, key });
    });
  }

  it('refuses words that no key takes, and other types, whatever is off', () => {
    for (const statement of ['auth_tcp = "foo"', 'tls_port = 16514', 'tcp_min_ssf = 56']) {
      write(`${statement}\n`);
      expect(fault()).to.include({ line: 1, key: statement.split(' ')[0] });
    }
  });

  it('warns of listeners that let strangers in', () => {
    expect(warningsOf('auth_tcp = "none"\n')).to.equal('');
    expect(warningsOf('listen_tcp = 1\nauth_tcp = "none"\n')).to.match(/conf:2: .*TCP port/);
    expect(warningsOf('listen_tls = 1\n')).to.match(/conf:1: .*every certificate of the CA/);
    expect(warningsOf('listen_tls = 1\ntls_no_verify_certificate = 1\n')).to.match(/TLS port/);
    expect(warningsOf('listen_tls = 1\ntls_allowed_dn_list = [ "CN=a" ]\n')).to.equal('');
    expect(warningsOf('listen_tls = 1\nauth_tls = "sasl"\n')).to.equal('');
    expect(warningsOf('listen_tls = 1\ntls_allowed_dn_list = []\n')).to.match(/no TLS client/);
    const open = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"\n';
    const system = { mode: 'system', configFile: confFile } as const;
    expect(warningsOf(open, system)).to.match(/conf:1: .*every local user/);
    expect(warningsOf('auth_unix_rw = "none"\n', system)).to.equal('');
    expect(warningsOf(open)).to.equal('');
  });

  it('warns of worker_user in session mode alone', () => {
    writeFileSync(clusterFile, '[cluster]\n\nworker_user = nobody\n');
    expect(warningsOf('')).to.equal(`${clusterFile}:3: worker_user has no effect in session mode.`);
    expect(warningsOf('', { mode: 'system', configFile: confFile })).to.equal('');
  });

  describe('--check-config', () => {
    it('says that all is well', () => {
      write('max_clients = 30\n', '');
      expect(checkConfiguration(options)).to.deep.equal({
        ok: true,
        text: 'The configuration is valid.\n',
      });
    });

    it('names absent files and warnings', () => {
      write('min_workers = 3\nfoo = 1\n');
      const { ok, text } = checkConfiguration(options);
      expect(ok).to.equal(true);
      expect(text.split('\n')).to.have.length(5);
      expect(text).to.include(`warning: ${confFile}:1: min_workers has no effect`);
      expect(text).to.include(`warning: ${confFile}:2: The unknown key foo is ignored.\n`);
      expect(text).to.include(`${clusterFile} does not exist; its defaults are used.\n`);
      expect(text).to.match(/The configuration is valid, with 2 warnings\.\n$/);
    });

    it('names every mistake', () => {
      write('listen_tcp = 3\nfoo = 1\n', '[log]\nformat = xml\n');
      const { ok, text } = checkConfiguration(options);
      expect(ok).to.equal(false);
      expect(text).to.include(`error: ${confFile}:1: listen_tcp must be 0 or 1, not 3.\n`);
      expect(text).to.include(`error: ${clusterFile}:2: format must be libvirt or json`);
      expect(text).to.match(/cannot start with this configuration: 2 errors, 1 warning\.\n$/);
    });

    it('looks at tls_priority while the TLS listener is on', () => {
      const priority = (text: string) => `auth_tls = "sasl"\ntls_priority = "${text}"\n`;
      write(`listen_tls = 1\n${priority('NORMAL:+AES-129-GCM')}`);
      const refused = checkConfiguration(options, inspectPriority);
      expect(refused.ok).to.equal(false);
      expect(refused.text)
        .to.include(`error: ${confFile}:3: tls_priority: `)
        .and.include('"+AES-129-GCM"');
      write(`listen_tls = 1\n${priority('NORMAL:-AES-129-GCM')}`);
      const { ok, text } = checkConfiguration(options, inspectPriority);
      expect(ok).to.equal(true);
      expect(text).to.include(
        `warning: ${confFile}:3: tls_priority: "-AES-129-GCM" takes away nothing`,
      );
      write(priority('NORMAL:+AES-129-GCM'), '');
      expect(checkConfiguration(options, inspectPriority).text).to.equal(
        'The configuration is valid.\n',
      );
    });

    it('names a given file that is missing', () => {
      const { ok, text } = checkConfiguration({ ...options, configFile: '/none/v.conf' });
      expect(ok).to.equal(false);
      expect(text).to.include('error: /none/v.conf: The configuration file cannot be read');
      expect(text).not.to.include('/none/v.conf does not exist');
    });
  });
});
