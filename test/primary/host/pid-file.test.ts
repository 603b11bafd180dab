import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { PidFile, PidFileError } from '../../../lib/primary/host/pid-file.js';

const module = new URL('../../../lib/primary/host/pid-file.js', import.meta.url);
const holder = `
  import { PidFile } from ${JSON.stringify(module)};
  PidFile.acquire(process.argv[1]);
  console.log('held');
  process.stdin.resume();
`;

describe('primary/host/pid-file', () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'pid-'));
    path = join(directory, 'pid');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('has our number instead of whatever was there, and goes with us', () => {
    writeFileSync(path, '123456789012345\nand more\n');
    const pidFile = PidFile.acquire(path);
    expect(readFileSync(path, 'utf8')).to.equal(`${process.pid}\n`);
    pidFile.release();
    expect(existsSync(path)).to.be.false;
  });

  it('stays for the process that takes over', () => {
    PidFile.acquire(path).handOver();
    expect(readFileSync(path, 'utf8')).to.equal(`${process.pid}\n`);
  });

  it('is not removed when another file has taken its name', () => {
    const pidFile = PidFile.acquire(path);
    rmSync(path);
    writeFileSync(path, 'of somebody else');
    pidFile.release();
    expect(readFileSync(path, 'utf8')).to.equal('of somebody else');
  });

  it('is refused while another process has it, and left as it is', async () => {
    const other = spawn(process.execPath, ['--input-type=module', '-e', holder, path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      await once(other.stdout, 'data');
      expect(() => PidFile.acquire(path)).to.throw(PidFileError, /is virtproxyd running already/);
      expect(readFileSync(path, 'utf8')).to.equal(`${other.pid}\n`);
    } finally {
      const exit = once(other, 'exit');
      other.kill('SIGKILL');
      await exit;
    }
    PidFile.acquire(path).release();
  });

  it('says what to do where it cannot be made', () => {
    const nowhere = join(directory, 'none/pid');
    expect(() => PidFile.acquire(nowhere, ' Set HOME.')).to.throw(
      PidFileError,
      /^Failed to open pid file '.*none\/pid': ENOENT.*\. Set HOME\.$/,
    );
  });
});
