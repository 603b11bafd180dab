import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { readConfiguration, type Configuration } from '../../lib/config/configuration.js';
import { ConfigError } from '../../lib/config/errors.js';
import { defaultOutputs } from '../../lib/logging/default-outputs.js';
import { LogControl, LogSettingError, type WorkerLogging } from '../../lib/logging/log-control.js';
import { LogOpenError } from '../../lib/logging/log-output.js';
import { Logger } from '../../lib/logging/logger.js';
import { DatagramRecorder } from '../peers/datagram-recorder.js';
import { freshDirectory, until } from '../peers/waiting.js';

describe('control of the log', () => {
  let directory: string;
  let control: LogControl | null = null;
  const place = (name: string): string => join(directory, name);
  const read = (name: string): string => readFileSync(place(name), 'utf8');
  const configuration = (conf = '', cluster = '', env = {}): Configuration => {
    writeFileSync(place('virtproxyd.conf'), conf);
    writeFileSync(place('virtproxyd-cluster.ini'), cluster);
    return readConfiguration({
      mode: 'system',
      configFile: place('virtproxyd.conf'),
      env,
      homeDirectory: directory,
    });
  };
  const open = (given: Configuration, verbose = false): LogControl =>
    (control = new LogControl(given, { daemon: false, verbose, env: {} }));
  const entry = {
    time: '2026-01-31T12:00:00.000Z',
    client: 3,
    transport: 'unix',
    rights: 'read-write',
    procedure: 'DOMAIN_CREATE',
    status: 'ok',
    duration_ms: 1.5,
  } as const;

  beforeEach(async () => (directory = await freshDirectory()));
  afterEach(() => {
    control?.flush();
    control?.prepare(configuration()).commit();
    control = null;
    rmSync(directory, { recursive: true });
  });

  it('takes levels, filters and outputs from the configuration', async () => {
    const { sink, threshold } = open(
      configuration(
        `log_level = 2\nlog_filters = "1:relay 4:pool"\nlog_outputs = "1:file:${place('log')}"\n`,
      ),
    );
    expect(control).to.include({
      level: 2,
      filters: '1:relay 4:pool',
      outputs: `1:file:${place('log')}`,
    });
    expect(control!.forWorkers).to.deep.equal({
      level: 2,
      filters: [
        { level: 1, match: 'relay' },
        { level: 4, match: 'pool' },
      ],
      auditing: false,
    });
    const log = new Logger('relay', threshold, sink);
    log.debug('shown');
    log.for('pool').warning('hidden');
    log.for('session').info('shown too');
    await until(() => read('log').includes('shown too'), { what: 'the lines' });
    expect(read('log')).to.match(/^.* debug : relay : shown\n.* info : session : shown too\n$/);
  });

  it('shows informational lines with --verbose, unless more is asked for', () => {
    expect(open(configuration('log_level = 4'), true).level).to.equal(2);
    expect(open(configuration('log_level = 1'), true).level).to.equal(1);
  });

  it('prefers the environment to the file, and the command line to both', () => {
    const file = 'log_level = 4\nlog_filters = "1:relay"\nlog_outputs = "4:journald"\n';
    const env = {
      LIBVIRT_DEBUG: 'warning',
      LIBVIRT_LOG_FILTERS: '2:rpc 1:*',
      LIBVIRT_LOG_OUTPUTS: '3:stderr',
    };
    const asked = { level: 3, filters: '2:rpc 1:*', outputs: '3:stderr' };
    expect(open(configuration(file, '', env))).to.include(asked);
    expect(open(configuration(file, '', env), true)).to.include({ ...asked, level: 2 });
    const empty = { LIBVIRT_DEBUG: '', LIBVIRT_LOG_FILTERS: '', LIBVIRT_LOG_OUTPUTS: '' };
    const inFile = { level: 4, filters: '1:relay', outputs: '4:journald' };
    expect(open(configuration(file, '', empty))).to.include(inFile);
    const blank = { LIBVIRT_LOG_FILTERS: ' ', LIBVIRT_LOG_OUTPUTS: ' ' };
    const none = { filters: '', outputs: '1:stderr' };
    expect(open(configuration(file, '', blank))).to.include(none);
  });

  for (const [name, value] of [
    ['LIBVIRT_DEBUG', 'warn'],
    ['LIBVIRT_DEBUG', '04'],
    ['LIBVIRT_LOG_FILTERS', '1:x 9:y'],
    ['LIBVIRT_LOG_OUTPUTS', '1:tape'],
  ] as const) {
    it(`refuses ${name}=${value}, as libvirtd 9.0 does`, () => {
      expect(() => configuration('', '', { [name]: value })).to.throw(
        ConfigError,
        `the environment: ${name} `,
      );
    });
  }

  it('changes filters while running, for workers as well, until they are set back', () => {
    const sent: WorkerLogging[] = [];
    const { threshold, sink } = open(configuration());
    const log = new Logger('session', threshold, sink);
    control!.onChange = (logging) => sent.push(logging);
    control!.setFilters('1:session 2:pool');
    expect(log.debugging).to.be.true;
    expect(control!.filters).to.equal('1:session 2:pool');
    control!.setFilters('');
    expect(log.debugging).to.be.false;
    expect(control!.filters).to.equal('');
    expect(sent.map(({ filters }) => filters.length)).to.deep.equal([2, 0]);
  });

  it('changes outputs while running, and back to the default', async () => {
    const { sink, threshold } = open(configuration(`log_outputs = "1:file:${place('log')}"`));
    const log = new Logger('session', threshold, sink);
    control!.setOutputs(` 4:file:${place('other')}  1:file:${place('log')} `);
    expect(control!.outputs).to.equal(`4:file:${place('other')} 1:file:${place('log')}`);
    log.error('to both');
    for (const name of ['log', 'other']) {
      await until(() => read(name).includes('to both'), { what: `the line in ${name}` });
    }
    control!.setOutputs(null);
    expect(control!.outputs).to.equal('1:stderr');
    control!.setOutputs('4:journald');
    control!.setOutputs('');
    expect(control!.outputs).to.equal('1:stderr');
  });

  it('says in a sentence what is wrong, and changes nothing', () => {
    open(configuration('log_outputs = "3:stderr"'));
    expect(() => control!.setOutputs('5:stderr'))
      .to.throw(LogSettingError)
      .with.property('message')
      .that.matches(/^log_outputs has "5:stderr", which must begin with a level: .*\.$/);
    expect(() => control!.setFilters('1'))
      .to.throw(LogSettingError)
      .with.property('message')
      .that.matches(/^log_filters has the malformed filter "1": .*\.$/);
    expect(() => control!.setOutputs(`1:file:${place('no/log')}`)).to.throw(LogOpenError);
    expect(control).to.include({ outputs: '3:stderr', filters: '' });
  });

  it('takes a new configuration as a whole or not at all', async () => {
    open(configuration(`log_outputs = "1:file:${place('log')}"`));
    const log = new Logger('session', control!.threshold, control!.sink);
    for (const wrong of [
      configuration(`log_outputs = "1:file:${place('no/log')}"`),
      configuration('', `[log]\naudit = ${place('no/audit')}\n`),
    ]) {
      expect(() => control!.prepare(wrong)).to.throw(LogOpenError, /no\/(log|audit)/);
    }
    const change = control!.prepare(
      configuration(
        `log_level = 1\nlog_outputs = "1:file:${place('new')}"`,
        `[log]\nformat = json\naudit = ${place('audit')}\n`,
      ),
    );
    expect(change.forWorkers).to.deep.equal({ level: 1, filters: [], auditing: true });
    expect(() => control!.setOutputs(null)).to.throw(LogSettingError, /is reloading/);
    log.error('before');
    control!.audit([entry]);
    change.commit();
    change.abandon();
    log.debug('after');
    control!.audit([entry]);
    await until(() => read('new').includes('"after"'), { what: 'the line after' });
    expect(read('log')).to.match(/^.*before\n$/);
    await until(() => read('audit') !== '', { what: 'the entry' });
    expect(JSON.parse(read('audit'))).to.deep.equal(entry);
  });

  it('makes an audit file for its owner alone, and opens it anew when asked', async () => {
    open(configuration('', `[log]\naudit = ${place('audit')}\n`));
    control!.audit([entry, { ...entry, client: 4 }]);
    await until(() => read('audit').split('\n').length === 3, { what: 'two lines' });
    expect(statSync(place('audit')).mode & 0o777).to.equal(0o600);
    rmSync(place('audit'));
    control!.reopen();
    control!.audit([{ ...entry, client: 5 }]);
    await until(() => read('audit') !== '', { what: 'the new file' });
    expect(JSON.parse(read('audit'))).to.have.property('client', 5);
  });

  it('says in the log when the audit file cannot be written', async () => {
    open(configuration(`log_outputs = "1:file:${place('log')}"`, '[log]\naudit = /dev/full\n'));
    control!.audit([entry]);
    await until(() => read('log') !== '', { what: 'the line' });
    expect(read('log')).to.match(
      /error : util.log : cannot write to the audit file \/dev\/full, .*ENOSPC/,
    );
  });

  describe('default output', () => {
    const usual = (daemon: boolean, env = {}): string => {
      const sockets = { syslog: place('syslog'), journal: place('journal') };
      const options = {
        daemon,
        env,
        mode: 'system',
        logFile: place('log/virtproxyd.log'),
      } as const;
      const [output] = defaultOutputs({ ...options, sockets });
      return 'path' in output ? `${output.kind}:${output.path}` : output.kind;
    };

    it('is the standard error in the foreground, whether or not there is a journald', () => {
      expect(usual(false)).to.equal('stderr');
      const journal = new DatagramRecorder(place('journal'));
      expect(usual(false, { JOURNAL_STREAM: '1:2' })).to.equal('stderr');
      journal.close();
    });

    it('is journald where the standard error leads there', () => {
      const { dev, ino } = statSync('/proc/self/fd/2');
      expect(usual(false, { JOURNAL_STREAM: `${dev}:${ino}` })).to.equal('journald');
    });

    it('is journald in the background, or a file where there is none', () => {
      expect(usual(true)).to.equal(`file:${place('log/virtproxyd.log')}`);
      expect(existsSync(place('log'))).to.be.true;
      const journal = new DatagramRecorder(place('journal'));
      expect(usual(true)).to.equal('journald');
      journal.close();
    });

    it('leaves a directory that cannot be made to the opening of the file', () => {
      writeFileSync(place('log'), '');
      expect(usual(true)).to.equal(`file:${place('log/virtproxyd.log')}`);
    });
  });
});
