import { expect } from 'chai';
import { journalEntry, libvirtLine, syslogMessage, untimed } from '../../lib/logging/format.js';
import type { LogRecord } from '../../lib/logging/logger.js';

const record: LogRecord = {
  time: Date.UTC(2026, 0, 9, 7, 5, 3, 45),
  pid: 4711,
  level: 'warning',
  component: 'session',
  message: 'client 7 left',
};

const forged = { ...record, message: 'a\nb\r\0\x1b[2J\x7f\x9b1m\u2028c ü€' };
const escaped = 'a\\x0ab\\x0d\\x00\\x1b[2J\\x7f\\x9b1m\\u2028c ü€';

describe('log formats', () => {
  it('writes lines as libvirt’s daemons do', () => {
    expect(libvirtLine(record)).to.equal(
      '2026-01-09 07:05:03.045+0000: 4711: warning : session : client 7 left\n',
    );
  });

  it('leaves time and process to syslog', () => {
    expect(syslogMessage(record, 'virtproxyd', untimed(record)).toString()).to.match(
      /^<28>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:03 virtproxyd\[4711\]: warning : session : client 7 left$/,
    );
  });

  for (const [level, priority] of [
    ['debug', 7],
    ['info', 6],
    ['warning', 4],
    ['error', 3],
  ] as const) {
    it(`gives ${level} the priority ${priority} of syslog`, () => {
      const at = { ...record, level };
      expect(syslogMessage(at, 'x', '').toString()).to.match(new RegExp(`^<${24 + priority}>`));
      expect(journalEntry(at).toString()).to.include(`\nPRIORITY=${priority}\n`);
    });
  }

  it('gives journald its fields', () => {
    expect(journalEntry(record).toString()).to.equal(
      'MESSAGE=client 7 left\nPRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=virtproxyd\n' +
        'SYSLOG_PID=4711\nLIBVIRT_SOURCE=session\nCODE_FUNC=session\n',
    );
  });

  it('never lets a message forge lines, fields or what a terminal does', () => {
    expect(libvirtLine(forged)).to.equal(
      `2026-01-09 07:05:03.045+0000: 4711: warning : session : ${escaped}\n`,
    );
    expect(untimed(forged)).to.equal(`warning : session : ${escaped}`);
    const lines = journalEntry({ ...record, message: 'x\nPRIORITY=0' })
      .toString()
      .split('\n');
    expect(lines[0]).to.equal('MESSAGE=x\\x0aPRIORITY=0');
    expect(lines.filter((line) => line.startsWith('PRIORITY='))).to.deep.equal(['PRIORITY=4']);
  });
});
