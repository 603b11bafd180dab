import { cpSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { run } from '../peers/clients.js';
import { freshDirectory } from '../peers/waiting.js';

const bundle = fileURLToPath(new URL('../../bundle', import.meta.url));
const packages = fileURLToPath(new URL('../../../node_modules', import.meta.url));
const entries = ['cli', 'worker'];

describe('the bundle', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await freshDirectory();
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  /** Makes the code caches of a copy of the bundle. */
  async function cachesMadeIn(place: string): Promise<Buffer[]> {
    cpSync(bundle, join(place, 'bundle'), { recursive: true });
    symlinkSync(packages, join(place, 'node_modules'));
    const caches: Buffer[] = [];
    for (const entry of entries) {
      const cache = join(place, 'bundle', entry, 'bundle.cache');
      rmSync(cache);
      const load = join(place, 'bundle/load.js');
      const args = ['--random-seed=1', load, join(place, 'bundle', entry)];
      const { stderr } = await run(process.execPath, args);
      expect(stderr).to.equal('');
      caches.push(readFileSync(cache));
    }
    return caches;
  }

  it('has code caches that V8 takes, the same wherever they are made', async () => {
    const caches = await cachesMadeIn(join(directory, 'here'));
    expect(await cachesMadeIn(join(directory, 'there'))).to.deep.equal(caches);
    // In a process of its own: V8 takes none from one that was given other flags, as some tests do.
    const look = `
      const { readFileSync } = require('node:fs');
      const [, source, cache] = process.argv;
      const cachedData = readFileSync(cache);
      const script = new (require('node:vm').Script)(readFileSync(source, 'latin1'), { cachedData });
      console.log(script.cachedDataRejected);`;
    for (const entry of entries) {
      const files = ['bundle.js', 'bundle.cache'].map((name) =>
        join(directory, 'here/bundle', entry, name),
      );
      const { stdout } = await run(process.execPath, ['-e', look, ...files]);
      expect(stdout, entry).to.equal('false\n');
    }
  });

  it('has the licence of each package in it', () => {
    const licences = readFileSync(join(bundle, 'packages.txt'), 'utf8');
    for (const entry of entries) {
      const source = readFileSync(join(bundle, entry, 'bundle.js'), 'utf8');
      const inside = [...source.matchAll(/^\/\/ node_modules\/((?:@[^/]+\/)?[^/]+)\//gm)];
      expect(inside).not.to.be.empty;
      for (const [, name = ''] of inside)
        expect(licences).to.match(new RegExp(`^${name} \\d`, 'm'));
    }
  });
});
