import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { run, searchPath } from '../peers/clients.js';
import { freshDirectory } from '../peers/waiting.js';

const configuration = fileURLToPath(new URL('../../../conf/logrotate/virtproxyd', import.meta.url));
const found = spawnSync('logrotate', ['--version'], { env: { PATH: searchPath } });
const reason = found.status === 0 ? null : 'needs logrotate';

describe(`conf/logrotate${reason === null ? '' : ` (${reason})`}`, () => {
  let directory: string;

  before(function () {
    if (reason !== null) this.skip();
  });
  beforeEach(async () => {
    directory = await freshDirectory();
    await mkdir(join(directory, 'log'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  it('empties the files the daemon has open and keeps what was in them', async () => {
    const text = await readFile(configuration, 'utf8');
    const rotate = join(directory, 'rotate');
    await writeFile(rotate, text.replaceAll('/var/log/libvirt', join(directory, 'log')), {
      mode: 0o644,
    });
    const log = join(directory, 'log/virtproxyd.log');
    const daemon = await open(log, 'a');
    try {
      await daemon.write('before\n');
      const { ino } = await stat(log);
      const args = ['--force', '--state', join(directory, 'state'), rotate];
      const { code, stderr } = await run('logrotate', args);
      expect([code, stderr]).to.deep.equal([0, '']);
      await daemon.write('after\n');
      expect(await readFile(log, 'utf8')).to.equal('after\n');
      expect((await stat(log)).ino).to.equal(ino);
      expect(await readFile(`${log}.1`, 'utf8')).to.equal('before\n');
      // The audit file was not there.
      expect(readdirSync(join(directory, 'log')).sort()).to.deep.equal([
        'virtproxyd.log',
        'virtproxyd.log.1',
      ]);
    } finally {
      await daemon.close();
    }
  });
});
