import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { run } from '../../peers/clients.js';

const isRoot = process.getuid?.() === 0;
const project = fileURLToPath(new URL('../../../../', import.meta.url));
const build = fileURLToPath(new URL('../../../', import.meta.url));

(isRoot ? describe : describe.skip)('primary/host/worker-user, by --check-config', function () {
  this.timeout(30_000);
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'worker-user-'));
    chmodSync(directory, 0o755);
    writeFileSync(join(directory, 'virtproxyd.conf'), '');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  /** What is said of a user; `words` stand before Node.js, `bin` is a program's. */
  async function said(
    user: string,
    { words = ['env'], bin = join(project, 'bin/virtproxyd') } = {},
  ): Promise<string> {
    writeFileSync(join(directory, 'virtproxyd-cluster.ini'), `[cluster]\nworker_user = ${user}\n`);
    const file = join(directory, 'virtproxyd.conf');
    const [program, ...args] = [...words, process.execPath, bin, '--check-config', '-f', file];
    return (await run(program, args)).stdout;
  }
  const place = (): string =>
    `error: ${directory}/virtproxyd-cluster.ini:2: [cluster] worker_user: `;

  it('takes a user that may read the program', async () => {
    expect(await said('nobody')).to.equal('The configuration is valid.\n');
  });

  it('refuses one that there is not, and root, by whatever name', async () => {
    expect(await said('no-such-user')).to.include(`${place()}There is no user 'no-such-user'`);
    for (const root of ['root', '0'])
      expect(await said(root)).to.include(`${place()}'${root}' is root`);
  });

  it('names the capabilities that the daemon lacks', async () => {
    const words = ['setpriv', '--bounding-set=-kill,-setgid'];
    expect(await said('nobody', { words })).to.match(/: it lacks CAP_SETGID and CAP_KILL\.$/m);
  });

  it('names the directory that keeps it from the program', async () => {
    const closed = join(directory, 'closed');
    mkdirSync(join(closed, 'dist'), { recursive: true });
    chmodSync(closed, 0o700);
    for (const part of ['bin', 'conf', 'package.json']) {
      cpSync(join(project, part), join(closed, part), { recursive: true });
    }
    for (const part of ['lib', 'bundle']) {
      cpSync(join(build, part), join(closed, 'dist', part), { recursive: true });
    }
    symlinkSync(join(project, 'node_modules'), join(closed, 'node_modules'));
    const text = await said('nobody', { bin: join(closed, 'bin/virtproxyd') });
    expect(text).to.include(`${place()}'nobody' may not enter or execute ${closed}, which`);
  });
});
