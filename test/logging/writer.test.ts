import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { parseLogOutputs } from '../../lib/config/log-settings.js';
import type { LogFormat } from '../../lib/logging/format.js';
import { LogOpenError } from '../../lib/logging/log-output.js';
import type { LogLevel } from '../../lib/logging/logger.js';
import { LogWriter } from '../../lib/logging/writer.js';
import { DatagramRecorder } from '../peers/datagram-recorder.js';
import { freshDirectory, until } from '../peers/waiting.js';

describe('log writer', () => {
  let directory: string;
  let writer: LogWriter | null = null;
  let recorders: DatagramRecorder[];
  const place = (name: string): string => join(directory, name);
  const read = (name: string): string => readFileSync(place(name), 'utf8');
  const settings = (outputs: string, format: LogFormat = 'libvirt') => ({
    format,
    outputs: parseLogOutputs(outputs),
  });
  const open = (outputs: string, format?: LogFormat): LogWriter => {
    const sockets = { syslog: place('syslog'), journal: place('journal') };
    return (writer = new LogWriter(settings(outputs, format), sockets));
  };
  const write = (level: LogLevel, message: string): void => {
    writer!.write({ time: 0, pid: 7, level, component: 'pool', message });
  };
  const writeAll = (): void => {
    for (const level of ['debug', 'info', 'warning', 'error'] as const) write(level, 'x');
  };
  const listen = (name: string): DatagramRecorder => {
    const recorder = new DatagramRecorder(place(name));
    recorders.push(recorder);
    return recorder;
  };
  const has = (name: string, pattern: RegExp): Promise<boolean> =>
    until(() => existsSync(place(name)) && pattern.test(read(name)), {
      what: `${pattern.source} in ${name}`,
    });

  beforeEach(async () => {
    directory = await freshDirectory();
    recorders = [];
  });
  afterEach(() => {
    writer?.prepare(settings('')).commit();
    writer = null;
    for (const recorder of recorders) recorder.close();
    rmSync(directory, { recursive: true });
  });

  it('writes to several outputs at once, to each from its level on', async () => {
    const syslog = listen('syslog');
    const journal = listen('journal');
    open(`4:file:${place('errors')} 2:file:${place('all')} 3:syslog:proxy 1:journald`);
    writeAll();
    await has('errors', /^[^\n]+\n$/);
    await until(() => read('all').split('\n').length === 4, { what: 'three lines' });
    expect(read('errors')).to.equal('1970-01-01 00:00:00.000+0000: 7: error : pool : x\n');
    expect(read('all')).to.match(/^.* info : .*\n.* warning : .*\n.* error : .*\n$/);
    await syslog.found(/^<27>.* proxy\[7\]: error : pool : x$/);
    expect(syslog.datagrams).to.have.lengthOf(2);
    await journal.found(/^MESSAGE=x\nPRIORITY=3\n/);
    expect(journal.datagrams).to.have.lengthOf(4);
  });

  it('makes files that only their owner may read, and adds to those that are there', async () => {
    writeFileSync(place('old'), 'before\n');
    open(`1:file:${place('new')} 1:file:${place('old')}`);
    write('info', 'x');
    await has('old', /^before\n.* x\n$/);
    expect(statSync(place('new')).mode & 0o777).to.equal(0o600);
  });

  it('writes JSON, one object a line', async () => {
    const syslog = listen('syslog');
    open(`1:file:${place('log')} 1:syslog:proxy`, 'json');
    write('error', 'a "b"\n{"level":"info"}\u2028\x7f');
    const expected = {
      level: 'error',
      time: '1970-01-01T00:00:00.000Z',
      pid: 7,
      component: 'pool',
      message: 'a "b"\n{"level":"info"}\u2028\x7f',
    };
    await has('log', /\n$/);
    expect(read('log').trimEnd().split('\n')).to.have.lengthOf(1);
    expect(JSON.parse(read('log'))).to.deep.equal(expected);
    const datagram = await syslog.found(/./);
    expect(JSON.parse(datagram.slice(datagram.indexOf('{')))).to.deep.equal(expected);
  });

  it('writes an output once that is named twice, with the level named last', async () => {
    open(`1:file:${place('log')} 4:file:${place('log')}`);
    writeAll();
    await has('log', /^[^\n]* error : [^\n]*\n$/);
  });

  it('says which output cannot be opened, and leaves nothing open', () => {
    const before = openFiles();
    expect(() => open(`1:file:${place('log')} 1:file:${place('no/log')}`))
      .to.throw(LogOpenError)
      .with.property('message')
      .that.matches(
        /^Cannot open the log output file:\/.*\/no\/log: ENOENT.*; make its directory or change log_outputs/,
      );
    expect(openFiles()).to.deep.equal(before);
  });

  it('changes outputs and format only at once, and never by halves', async () => {
    open(`1:file:${place('one')} 1:file:${place('two')}`);
    expect(() => writer!.prepare(settings(`1:file:${place('no/log')}`))).to.throw(LogOpenError);
    writer!.prepare(settings(`1:file:${place('three')}`)).abandon();
    const change = writer!.prepare(
      settings(`1:file:${place('two')} 1:file:${place('three')}`, 'json'),
    );
    write('info', 'before');
    change.commit();
    write('info', 'after');
    await has('three', /"after"/);
    await has('two', /before\n.*"after"/);
    await has('one', /before\n$/);
    expect(openFiles().filter((path) => path.startsWith(directory))).to.deep.equal([
      place('three'),
      place('two'),
    ]);
  });

  it('follows a log’s rotation, and goes on in the old file where that fails', async () => {
    open(`1:file:${place('log')}`);
    write('info', 'one');
    await has('log', /one/);
    renameSync(place('log'), place('log.1'));
    write('info', 'two');
    await has('log.1', /two/);
    writer!.reopen();
    write('info', 'three');
    await has('log', /three/);
    expect(statSync(place('log')).mode & 0o777).to.equal(0o600);
    expect(read('log.1')).not.to.match(/three/);
    renameSync(place('log'), place('log.2'));
    execFileSync('mkdir', [place('log')]);
    writer!.reopen();
    write('info', 'four');
    await has(
      'log.2',
      /cannot open file:.*log anew, the log goes on in the old file: EISDIR.*\n.*four/,
    );
  });

  it('survives a full disk, and says so elsewhere', async () => {
    open(`1:file:/dev/full 1:file:${place('log')}`);
    write('info', 'one');
    await has(
      'log',
      /one\n.*error : util.log : cannot write to file:\/dev\/full, its lines wait: ENOSPC/,
    );
    write('info', 'two');
    await has('log', /two/);
    expect(read('log').match(/cannot write/g)).to.have.lengthOf(1);
  });

  it('waits for a slow reader without blocking, counts what it drops, and says so once', async () => {
    execFileSync('mkfifo', [place('fifo')]);
    const reader = openSync(place('fifo'), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      open(`1:file:${place('fifo')} 4:file:${place('log')}`);
      const long = 'x'.repeat(10_000);
      const before = performance.now();
      for (let count = 0; count < 600; count++) write('info', `${count} ${long}`);
      expect(performance.now() - before).to.be.below(1000);
      await delay(0);
      const { drops } = writer!;
      expect(drops).to.be.within(150, 250);
      let text = '';
      await until(
        () => {
          text += readAll(reader);
          return /lines for file:.* are lost: it did not take them\n$/.test(text);
        },
        { what: 'the report at the end of what was kept' },
      );
      const kept = [...text.matchAll(/ info : pool : (\d+) /g)].map(([, number]) => Number(number));
      expect(kept).to.deep.equal([...Array(600 - drops).keys()]);
      expect(text).to.include(`${drops} lines for file:`);
      expect(text.match(/are lost/g)).to.have.lengthOf(1);
      await has('log', /are lost/);
      write('info', 'after');
      await until(() => (text += readAll(reader)).endsWith('after\n'), { what: 'the next line' });
      expect(writer!.drops).to.equal(drops);
    } finally {
      closeSync(reader);
    }
  });

  it('waits for journald and syslog while they are away, and finds them again', async () => {
    let journal = listen('journal');
    open(`1:journald 1:syslog:proxy 4:file:${place('log')}`);
    write('info', 'one');
    await journal.found(/^MESSAGE=one\n/);
    // There was no syslog from the beginning.
    await has('log', /cannot write to syslog:proxy, its lines wait: .*ENOENT/);
    recorders.splice(recorders.indexOf(journal), 1);
    journal.close();
    rmSync(place('journal'));
    write('info', 'two');
    await has('log', /cannot write to journald, its lines wait: .*ENOENT/);
    journal = listen('journal');
    await journal.found(/^MESSAGE=two\n/);
    await listen('syslog').found(/: two$/);
    expect(writer!.drops).to.equal(0);
  });

  it('does not block on a journald that does not read', async () => {
    const journal = listen('journal');
    open('1:journald');
    // The kernel queues a few hundred; these are more than it and the writer keep.
    const long = 'x'.repeat(10_000);
    for (let count = 0; count < 1000; count++) write('info', `${count} ${long}`);
    await until(() => writer!.drops > 0, { what: 'drops' });
    const { drops } = writer!;
    await journal.found(new RegExp(`^MESSAGE=${drops} lines for journald are lost`));
    const kept = journal.datagrams.filter((datagram) => datagram.startsWith('MESSAGE='));
    expect(kept).to.have.lengthOf(1000 - drops + 1);
  });
});

/** The files this process has open, in order of their paths. */
function openFiles(): string[] {
  const listing = execFileSync('sh', [
    '-c',
    `for f in /proc/${process.pid}/fd/*; do readlink $f; done`,
  ]);
  return listing
    .toString()
    .split('\n')
    .filter((path) => path.startsWith('/') && !path.startsWith('/proc') && !path.startsWith('/dev'))
    .sort();
}

function readAll(fd: number): string {
  const buffer = Buffer.alloc(64 * 1024);
  let text = '';
  for (;;) {
    try {
      const length = readSync(fd, buffer);
      if (length === 0) return text;
      text += buffer.toString('latin1', 0, length);
    } catch {
      // Empty for now.
      return text;
    }
  }
}
