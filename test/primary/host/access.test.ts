import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needsFor, refusedTo, type AccessKind } from '../../../lib/primary/host/access.js';
import { account } from '../../peers/clients.js';

const isRoot = process.getuid?.() === 0;

(isRoot ? describe : describe.skip)('primary/host/access', () => {
  let directory: string;
  let file: string;
  let link: string;
  const user = account('nobody');

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'access with \'odd "$name-'));
    chmodSync(directory, 0o755);
    mkdirSync(join(directory, 'inner'), 0o755);
    file = join(directory, 'inner/file');
    link = join(directory, 'link');
    writeFileSync(file, '', { mode: 0o640 });
    symlinkSync('inner/file', link);
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const refused = (path: string, kind: AccessKind): string[] =>
    refusedTo(user, needsFor(path, kind)).map((need) => `${need.kind} ${need.path}`);

  it('names what a user may not do, to the very kind', () => {
    expect(refused(file, 'r')).to.deep.equal([`r ${file}`]);
    chmodSync(file, 0o644);
    expect(refused(file, 'r')).to.deep.equal([]);
    expect(refused(file, 'w')).to.deep.equal([`w ${file}`]);
  });

  it('goes by the group, and by no other that root has', () => {
    expect(refused(file, 'r')).to.deep.equal([`r ${file}`]);
    chownSync(file, 0, user.gid);
    expect(refused(file, 'r')).to.deep.equal([]);
  });

  it('names a directory on the way, behind a symbolic link too', () => {
    chmodSync(file, 0o644);
    chmodSync(join(directory, 'inner'), 0o700);
    expect(refused(link, 'r')).to.deep.equal([`x ${join(directory, 'inner')}`, `r ${link}`]);
  });
});
