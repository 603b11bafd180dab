import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import {
  duplicateOnto,
  openFilesLimit,
  raiseOpenFilesLimit,
  sealedMemoryFile,
  setCloseOnExec,
} from '../../lib/native/descriptors.js';
import { NativeError } from '../../lib/native/error.js';

const closesOnExec = (fd: number): boolean => {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  const flags = /^flags:\s*([0-7]+)$/m.exec(info)![1]!;
  return (parseInt(flags, 8) & 0o2000000) !== 0;
};

describe('native/descriptors', () => {
  it('puts a descriptor onto another number', () => {
    const zero = openSync('/dev/zero', 'r');
    const target = openSync('/dev/null', 'r');
    try {
      duplicateOnto(zero, target);
      expect(fstatSync(target).rdev).to.equal(fstatSync(zero).rdev);
      expect(closesOnExec(target)).to.be.false;
      expect(() => duplicateOnto(-1, target))
        .to.throw(NativeError)
        .with.property('code', 'EBADF');
    } finally {
      closeSync(zero);
      closeSync(target);
    }
  });

  it('turns close-on-exec on and off', () => {
    const fd = openSync('/dev/null', 'r');
    try {
      setCloseOnExec(fd, false);
      expect(closesOnExec(fd)).to.be.false;
      setCloseOnExec(fd, true);
      expect(closesOnExec(fd)).to.be.true;
    } finally {
      closeSync(fd);
    }
    expect(() => setCloseOnExec(-1, true))
      .to.throw(NativeError)
      .with.property('code', 'EBADF');
  });

  it('raises the soft limit of open files to the hard one', () => {
    const { soft, hard } = raiseOpenFilesLimit();
    expect(soft).to.equal(hard);
    expect(openFilesLimit()).to.deep.equal({ soft, hard });
    const told = /^Max open files\s+(\S+)\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    expect(told![2]).to.equal(hard === 2n ** 64n - 1n ? 'unlimited' : `${hard}`);
  });

  it('makes a memory file that nobody can change', () => {
    const bytes = Buffer.alloc(300_000, 'journal');
    const fd = sealedMemoryFile('test', bytes);
    try {
      expect(readFileSync(`/proc/self/fd/${fd}`).equals(bytes)).to.be.true;
      expect(() => writeSync(fd, 'x', 0)).to.throw('EPERM');
      expect(() => ftruncateSync(fd, 1)).to.throw('EPERM');
    } finally {
      closeSync(fd);
    }
  });
});
