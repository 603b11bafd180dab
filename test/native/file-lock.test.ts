import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import { lockForLife } from '../../lib/native/file-lock.js';

const holder = `
  import { openSync } from 'node:fs';
  import { lockForLife } from ${JSON.stringify(new URL('../../lib/native/file-lock.js', import.meta.url))};
  console.log(lockForLife(openSync(process.argv[1], 'a')));
  process.stdin.resume();
`;

describe('native/file-lock', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'lock-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('is refused while another process holds it, and free again once that has died', async () => {
    const path = join(directory, 'pid');
    const other = spawn(process.execPath, ['--input-type=module', '-e', holder, path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const fd = openSync(path, 'a');
    try {
      const [answer] = (await once(other.stdout, 'data')) as [Buffer];
      expect(answer.toString()).to.equal('true\n');
      expect(lockForLife(fd)).to.be.false;
      const exit = once(other, 'exit');
      other.kill('SIGKILL');
      await exit;
      expect(lockForLife(fd)).to.be.true;
      expect(lockForLife(fd), 'again in the same process').to.be.true;
    } finally {
      other.kill('SIGKILL');
      closeSync(fd);
    }
  });

  it('needs a descriptor that is open for writing', () => {
    const fd = openSync('/dev/null', 'r');
    try {
      expect(() => lockForLife(fd))
        .to.throw(NativeError)
        .with.property('code', 'EBADF');
    } finally {
      closeSync(fd);
    }
  });
});
