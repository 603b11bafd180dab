import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { run, searchPath } from '../peers/clients.js';
import { NpmRegistry } from '../peers/npm-registry.js';
import { freshDirectory } from '../peers/waiting.js';
import { lacking, project, version } from './built-packages.js';
import { expectServes } from './served-program.js';

const obstacle = lacking('npm', 'tar');

describe(`npm pack${obstacle === null ? '' : ` (${obstacle})`}`, function () {
  this.timeout(120_000);
  let directory: string;
  let registry: NpmRegistry;

  before(async function () {
    if (obstacle !== null) this.skip();
    directory = await freshDirectory();
    await mkdir(join(directory, 'tarballs'));
    registry = await NpmRegistry.listen(join(project, 'node_modules'), join(directory, 'tarballs'));
  });
  after(async () => {
    if (obstacle !== null) return;
    await registry.close();
    await rm(directory, { recursive: true });
  });

  const npm = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run('npm', args, {
      env: {
        PATH: searchPath,
        HOME: directory,
        npm_config_cache: join(directory, 'cache'),
        npm_config_registry: registry.url,
        npm_config_update_notifier: 'false',
        npm_config_loglevel: 'error',
        // The suite runs from what is built; packing must not build it again meanwhile.
        npm_config_ignore_scripts: 'true',
      },
      timeoutMs: 90_000,
    });
    if (code !== 0) throw new Error(`status ${code ?? ''}: npm ${args.join(' ')}: ${stderr}`);
    return stdout;
  };

  it('makes a tarball that npm install -g makes a working program of, without scripts', async () => {
    const packed = await npm('pack', project, '--json', '--pack-destination', directory);
    const [{ filename, files }] = JSON.parse(packed) as [
      { filename: string; files: { path: string }[] },
    ];
    const paths = files.map(({ path }) => path);
    expect(paths).to.include.members(['bin/virtproxyd', 'dist/bundle/cli/main.js', 'LICENSE']);
    expect(paths.filter((path) => /^(dist\/test|test|lib|node_modules)\//.test(path))).to.be.empty;

    const prefix = join(directory, 'prefix');
    await npm('install', '--global', '--prefix', prefix, join(directory, filename));
    const program = join(prefix, 'bin/virtproxyd');
    const { stdout } = await run(program, ['--version'], { env: { PATH: searchPath } });
    expect(stdout).to.equal(`virtproxyd (libvirt) ${version}\n`);
    for (const page of readdirSync(join(project, 'man'))) {
      const installed = join(prefix, 'share/man', `man${page.at(-1)}`, page);
      expect(readFileSync(installed, 'utf8')).to.equal(
        readFileSync(join(project, 'man', page), 'utf8'),
      );
    }
    // Nothing is used from the checkout.
    expect(realpathSync(program)).to.match(/^\S+\/prefix\/lib\/node_modules\/virtproxyd\//);
    await expectServes(program, directory);

    await npm('uninstall', '--global', '--prefix', prefix, 'virtproxyd');
    expect(existsSync(program)).to.be.false;
  });
});
