import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { parseStartTime, processStartTime } from '../../lib/native/process-info.js';

describe('native/process-info', () => {
  it('says when a process started, by the same clock as the kernel', () => {
    const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
    const started = Number(processStartTime(process.pid)) / 100;
    expect(uptime - started).to.be.closeTo(process.uptime(), 1);
  });

  it('answers null for a process that does not exist', () => {
    expect(processStartTime(0x3fffff + 1)).to.be.null;
  });

  for (const command of ['node', 'a b', 'a) b (c', '(sd-pam)', ') R 1 1 1', '']) {
    it(`is not led astray by the command (${command})`, () => {
      const fields = Array.from({ length: 19 }, (_, index) => `${index}`);
      const stat = `77 (${command}) S ${fields.slice(0, 18).join(' ')} 123456789012 9 9\n`;
      expect(parseStartTime(stat)).to.equal(123456789012n);
    });
  }

  it('answers null for a line that is cut short', () => {
    expect(parseStartTime('77 (node) S 1 2 3')).to.be.null;
    expect(parseStartTime('')).to.be.null;
  });
});
