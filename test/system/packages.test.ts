import { readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Finished, run, searchPath } from '../peers/clients.js';
import { freshDirectory } from '../peers/waiting.js';
import { build, buildPackages, lacking, project, version } from './built-packages.js';

const obstacle = lacking('dpkg-deb', 'rpmbuild', 'rpm2cpio', 'cpio');
const linters = lacking('lintian', 'rpmlint');

/** Files and links below a directory, without the program's own. */
const outside = (root: string): string[] =>
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => `${entry.parentPath.slice(root.length)}/${entry.name}`)
    .filter((path) => !path.startsWith('/usr/lib/virtproxyd/'))
    .sort();

describe(`npm run package${obstacle === null ? '' : ` (${obstacle})`}`, function () {
  this.timeout(240_000);
  let directory: string;
  let deb: string;
  let rpm: string;
  let again: readonly string[];

  before(async function () {
    if (obstacle !== null) this.skip();
    directory = await freshDirectory();
    [[deb = '', rpm = ''], again] = await Promise.all([
      buildPackages(join(directory, 'first'), ['deb', 'rpm']),
      buildPackages(join(directory, 'again'), ['deb', 'rpm'], { umask: '077' }),
    ]);
  });
  after(async () => {
    if (obstacle === null) await rm(directory, { recursive: true });
  });

  const succeeds = async (command: string, ...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await attempt(command, ...args);
    if (code !== 0) throw new Error(`status ${code ?? ''}: ${command}: ${stdout}${stderr}`);
    return stdout;
  };
  const attempt = (command: string, ...args: string[]): Promise<Finished> =>
    run(command, args, { env: { PATH: searchPath }, timeoutMs: 120_000 });
  const shell = (script: string, ...args: string[]): Promise<string> =>
    succeeds('bash', '-ec', script, 'sh', ...args);

  it('makes the same bytes each time, whoever builds', () => {
    for (const [index, path] of [deb, rpm].entries()) {
      expect(readFileSync(again[index]!).equals(readFileSync(path)), path).to.be.true;
    }
  });

  it('has the files of install-system, but for libvirt’s, and what its distribution wants', async () => {
    const installed = join(directory, 'installed');
    await shell(
      'BUILD_DIR=$2 DESTDIR=$3 PREFIX=/usr WITH=systemd,sysv NODE=/usr/bin/node bash "$1/conf/install"',
      ...[project, build, installed],
    );
    const expected = outside(installed)
      .filter((path) => !path.startsWith('/usr/share/polkit-1/'))
      .map((path) => (path.startsWith('/usr/share/man/') ? `${path}.gz` : path));

    const debRoot = join(directory, 'deb');
    await succeeds('dpkg-deb', '--extract', deb, debRoot);
    const doc = ['changelog.gz', 'copyright'].map((name) => `/usr/share/doc/virtproxyd/${name}`);
    expect(outside(debRoot)).to.deep.equal(
      [...expected, ...doc, '/usr/share/lintian/overrides/virtproxyd'].sort(),
    );
    const configuration = expected.filter((path) => path.startsWith('/etc/'));
    expect(
      (await succeeds('dpkg-deb', '--info', deb, 'conffiles')).trim().split('\n').sort(),
    ).to.deep.equal(configuration);

    expect(readFileSync(join(debRoot, 'etc/libvirt/virtproxyd-cluster.ini'), 'utf8')).to.match(
      /^worker_user = virtproxyd$/m,
    );

    const rpmFiles = (await succeeds('rpm', '-qpl', rpm)).trim().split('\n');
    expect(rpmFiles).to.include.members(
      expected.filter((path) => path !== '/etc/init.d/virtproxyd'),
    );
    expect((await succeeds('rpm', '-qpc', rpm)).trim().split('\n').sort()).to.deep.equal(
      configuration.filter((path) => path !== '/etc/init.d/virtproxyd'),
    );
    expect(
      await succeeds('rpm', '-qp', '--queryformat', '[%{filenames} %{fileflags:fflags}\n]', rpm),
    ).to.match(/^\/etc\/libvirt\/virtproxyd\.conf cn$/m);
    // Nothing that the other has not.
    const program = (paths: string[]): string[] =>
      paths.filter((path) => path.startsWith('/usr/lib/virtproxyd/program/') && /\.js$/.test(path));
    const debFiles = (
      await shell('cd "$1" && find . -type f -printf "/%P\n" | sort', debRoot)
    ).split('\n');
    expect(program(rpmFiles).sort()).to.deep.equal(program(debFiles).sort());
    expect(statSync(join(debRoot, 'etc/init.d/virtproxyd')).mode & 0o777).to.equal(0o755);
  });

  it('names what it needs and what it takes the place of', async () => {
    const field = (name: string): Promise<string> => succeeds('dpkg-deb', '--field', deb, name);
    expect(await field('Version')).to.equal(`${version}\n`);
    expect(await field('Depends'))
      .to.match(/\bnodejs \(>= 20\.19\)/)
      .and.match(/\blibsasl2-2\b/)
      .and.match(/\blibc6 \(>= 2\.\d+\)/);
    expect(await field('Recommends')).to.include('libvirt-clients');
    expect(await field('Conflicts')).to.include('libvirt-daemon-proxy');
    const requires = await succeeds('rpm', '-qp', '--requires', rpm);
    expect(requires).to.include('nodejs(engine) >= 20.19\n').and.include('cyrus-sasl-lib\n');
    // Only the daemon's own interpreters, and the libraries of one C library.
    expect(requires.split('\n').filter((name) => name.startsWith('/'))).to.have.all.members([
      '/bin/sh',
      '/bin/sh',
      '/bin/sh',
      '/usr/bin/node',
      '/usr/bin/node',
    ]);
    expect(requires).not.to.include('musl');
    expect(requires).to.include('shadow-utils\n');
    expect(await succeeds('rpm', '-qp', '--recommends', rpm)).to.equal('libvirt-client\n');
    expect(await succeeds('rpm', '-qp', '--conflicts', rpm)).to.equal('libvirt-daemon-proxy\n');
  });

  it(`has nothing that lintian or rpmlint object to${linters === null ? '' : ` (${linters})`}`, async function () {
    if (linters !== null) this.skip();
    const allowRoot = process.getuid?.() === 0 ? ['--allow-root'] : [];
    const rpmlintrc = join(project, 'conf/packaging/rpm/rpmlintrc');
    const [ofDeb, ofRpm] = await Promise.all([
      succeeds('lintian', ...allowRoot, '--fail-on', 'error,warning', deb),
      succeeds('rpmlint', '--rpmlintrc', rpmlintrc, rpm),
    ]);
    expect(ofDeb).to.equal('');
    expect(ofRpm).to.include('0 errors, 0 warnings');
  });

  it('has an rpm that rpm would install, and that runs from where it is unpacked', async () => {
    const root = join(directory, 'rpm');
    await mkdir(root);
    await shell('cd "$1" && rpm2cpio "$2" | cpio --extract --make-directories --quiet', root, rpm);
    const library = join(root, 'usr/lib/virtproxyd');
    await succeeds(join(library, 'program/conf/release'), 'use', library);
    const program = join(root, 'usr/sbin/virtproxyd');
    // Run by hand: the interpreter that it names is the distribution's.
    expect(await succeeds(process.execPath, program, '--version')).to.equal(
      `virtproxyd (libvirt) ${version}\n`,
    );
    const checked = await attempt(process.execPath, program, '--check-config');
    expect([checked.code, checked.stderr]).to.deep.equal([0, '']);
    // All that the program may load.
    await succeeds(
      process.execPath,
      '--input-type=module',
      '--eval',
      `import { createRequire } from 'node:module';
      const require = createRequire('${library}/current/package.json');
      for (const name of Object.keys(require('./package.json').dependencies)) require(name);`,
    );
    const empty = join(directory, 'empty');
    await mkdir(empty);
    // Another distribution's packages are not there to be depended on.
    await succeeds('rpm', '--root', empty, '--install', '--test', '--nodeps', rpm);
  });

  it('says what it lacks', async () => {
    const script = join(project, 'conf/packaging/build');
    const wrong = await attempt('bash', script, 'tar');
    expect([wrong.code, wrong.stderr]).to.deep.equal([
      1,
      'package: usage: conf/packaging/build [deb] [rpm]\n',
    ]);
    const { code, stderr } = await run('bash', [script, 'deb'], {
      env: { PATH: searchPath, OUTPUT: join(directory, 'x'), BUILD_DIR: join(directory, 'y') },
    });
    expect(code).to.equal(1);
    expect(stderr).to.include(`there is no built program in ${directory}/y: run 'npm run build'`);
  });
});
