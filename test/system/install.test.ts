import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { type Finished, run } from '../peers/clients.js';
import { freshDirectory } from '../peers/waiting.js';
import { expectServes } from './served-program.js';

const build = fileURLToPath(new URL('../../', import.meta.url));
const project = fileURLToPath(new URL('../../../', import.meta.url));
const { version } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as {
  version: string;
};

const samples = ['/etc/libvirt/virtproxyd.conf', '/etc/libvirt/virtproxyd-cluster.ini'];
const policy = '/usr/share/polkit-1/actions/org.libvirt.unix.policy';

describe('conf/install', function () {
  this.timeout(120_000);
  let directory: string;
  let root: string;

  beforeEach(async () => {
    directory = await freshDirectory();
    root = join(directory, 'root');
    await mkdir(root);
  });
  afterEach(() => rm(directory, { recursive: true }));

  const install = async (
    action: 'install' | 'uninstall',
    env: Record<string, string> = {},
  ): Promise<string[]> => {
    const { code, stdout, stderr } = await attempt(action, env);
    expect([code, stderr]).to.deep.equal([0, '']);
    return stdout.trim().split('\n');
  };
  const attempt = (action: string, env: Record<string, string> = {}): Promise<Finished> =>
    run('bash', [join(project, 'conf/install'), action], {
      env: {
        PATH: process.env['PATH'] ?? '',
        DESTDIR: root,
        BUILD_DIR: build,
        WITH: 'systemd',
        NODE: process.execPath,
        ...env,
      },
      timeoutMs: 60_000,
    });
  const at = (path: string): string => join(root, path);
  /** Every file below `root`, without the packages. */
  const files = (): string[] =>
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => `${entry.parentPath.slice(root.length)}/${entry.name}`)
      .filter((path) => !path.includes('/node_modules/'))
      .sort();

  it('installs a program that serves from where it is, and takes all of it back', async () => {
    await install('install', { PREFIX: '/opt/vp' });
    const program = at('/opt/vp/sbin/virtproxyd');
    expect((await run(program, ['--version'])).stdout).to.equal(
      `virtproxyd (libvirt) ${version}\n`,
    );
    expectInPlace();

    // No search path: neither node nor the packages of the project may be found by chance.
    await expectServes(program, directory, { PATH: '/nonexistent' });

    await install('uninstall', { PREFIX: '/opt/vp' });
    expect(files()).to.be.empty;
    expect(existsSync(at('/opt/vp/lib/virtproxyd'))).to.be.false;
  });

  /** Everything is where it belongs, with the path of the program in it. */
  function expectInPlace(): void {
    const program = '/opt/vp/sbin/virtproxyd';
    expect(files().filter((path) => !path.startsWith('/opt/vp/lib/virtproxyd/'))).to.deep.equal(
      [
        '/etc/default/virtproxyd',
        ...[...samples].sort(),
        '/etc/logrotate.d/virtproxyd',
        '/opt/vp/lib/systemd/system/virtproxyd-admin.socket',
        '/opt/vp/lib/systemd/system/virtproxyd-ro.socket',
        '/opt/vp/lib/systemd/system/virtproxyd-tcp.socket',
        '/opt/vp/lib/systemd/system/virtproxyd-tls.socket',
        '/opt/vp/lib/systemd/system/virtproxyd.service',
        '/opt/vp/lib/systemd/system/virtproxyd.socket',
        '/opt/vp/lib/sysusers.d/virtproxyd.conf',
        program,
        ...readdirSync(join(project, 'man')).map(
          (page) => `/opt/vp/share/man/man${page.at(-1)}/${page}`,
        ),
        '/opt/vp/share/virtproxyd/monitoring/virtproxyd-dashboard.json',
        '/opt/vp/share/virtproxyd/monitoring/virtproxyd-rules.yml',
        policy,
      ].sort(),
    );
    const unit = readFileSync(at('/opt/vp/lib/systemd/system/virtproxyd.service'), 'utf8');
    expect(unit).to.include(`ExecStart=${program} $VIRTPROXYD_ARGS`).and.not.include('/usr/local');
    expect(readFileSync(at('/opt/vp/share/man/man8/virtproxyd.8'), 'utf8')).to.equal(
      readFileSync(join(project, 'man/virtproxyd.8'), 'utf8'),
    );
    expect(statSync(at(program)).mode & 0o777).to.equal(0o755);
    expect(statSync(at('/etc/libvirt/virtproxyd.conf')).mode & 0o777).to.equal(0o644);
    // Nothing that only development or the tests need.
    const packages = readdirSync(at('/opt/vp/lib/virtproxyd/program/node_modules'));
    expect(packages).to.include.members(['koffi', 'pino', 'throng']);
    expect(packages).not.to.include.members(['mocha']).and.not.include.members(['typescript']);
    expect(existsSync(at('/opt/vp/lib/virtproxyd/program/dist/test'))).to.be.false;
    // Nothing is for others than root to change.
    const others = files().filter((path) => (statSync(at(path)).mode & 0o022) !== 0);
    expect(others).to.be.empty;
  }

  it('installs for the init systems it is told of', async () => {
    await install('install', { WITH: 'systemd,sysv' });
    const script = at('/etc/init.d/virtproxyd');
    expect(readFileSync(script, 'utf8')).to.include('### BEGIN INIT INFO');
    expect(statSync(script).mode & 0o777).to.equal(0o755);
    expect(existsSync(at('/usr/local/lib/systemd/system/virtproxyd.socket'))).to.be.true;
    await install('uninstall');

    await install('install', { WITH: 'openrc', PREFIX: '/usr' });
    expect(readFileSync(script, 'utf8'))
      .to.match(/^#!\/sbin\/openrc-run\n/)
      .and.include('DAEMON:=/usr/sbin/virtproxyd');
    expect(files()).to.include('/etc/conf.d/virtproxyd').and.not.include('/etc/default/virtproxyd');
    await install('uninstall', { PREFIX: '/usr' });
    expect(files()).to.be.empty;

    const { code, stderr } = await attempt('install', { WITH: 'upstart' });
    expect([code, stderr.trim()]).to.deep.equal([
      1,
      'install: WITH=upstart: give systemd, sysv, openrc or none',
    ]);
  });

  it('keeps what an administrator or another package has put there, and says so', async () => {
    for (const path of [...samples, policy, '/etc/logrotate.d/virtproxyd']) {
      await mkdir(dirname(at(path)), { recursive: true });
      await writeFile(at(path), `# mine: ${path}\n`);
    }
    const kept = [...samples, '/etc/logrotate.d/virtproxyd', policy];
    const said = await install('install');
    expect(
      said.filter((line) => line.startsWith('kept')).map((line) => line.split(/ +/)[1]),
    ).to.deep.equal(kept);
    // It names the sample to compare with.
    expect(existsSync(at('/usr/local/lib/virtproxyd/program/conf/virtproxyd.conf'))).to.be.true;
    await install('uninstall');
    expect(files()).to.deep.equal([...kept].sort());
    for (const path of kept) {
      expect(await readFile(at(path), 'utf8')).to.equal(`# mine: ${path}\n`);
    }
  });

  it('can be run again: replaces the program, but no configuration that was edited', async () => {
    await install('install');
    const [edited = '', untouched = ''] = samples;
    await appendFile(at(edited), 'max_clients = 7\n');
    await writeFile(
      at('/usr/local/lib/virtproxyd/program/dist/bundle/gone.js'),
      'of an older version',
    );
    // As if the earlier version had had another sample.
    const old = (await readFile(at(untouched), 'utf8')).replace('# Settings', '# Old settings');
    await pretendInstalled(untouched, old);

    const said = await install('install');
    expect(said.filter((line) => line.startsWith('kept')).join()).to.include(edited);
    expect(await readFile(at(edited), 'utf8')).to.match(/max_clients = 7\n$/);
    expect(await readFile(at(untouched), 'utf8')).not.to.include('# Old settings');
    expect(existsSync(at('/usr/local/lib/virtproxyd/current/dist/bundle/gone.js'))).to.be.false;

    const removed = await install('uninstall');
    expect(removed).to.include(`kept       ${edited}, which was changed`);
    expect(files()).to.deep.equal([edited]);
  });

  /**
   * Makes a file, and the list of installed files, look as an earlier version would have left them.
   */
  async function pretendInstalled(path: string, text: string): Promise<void> {
    await writeFile(at(path), text);
    const list = at('/usr/local/lib/virtproxyd/installed');
    const sum = (await run('sha256sum', [at(path)])).stdout.split(' ')[0] ?? '';
    const lines = (await readFile(list, 'utf8')).split('\n');
    await writeFile(
      list,
      lines.map((line) => (line.endsWith(`  ${path}`) ? `${sum}  ${path}` : line)).join('\n'),
    );
  }

  it('says what it lacks', async () => {
    const unbuilt = await attempt('install', { BUILD_DIR: join(directory, 'missing') });
    expect([unbuilt.code, unbuilt.stderr]).to.deep.equal([
      1,
      `install: there is no built program in ${directory}/missing: run 'npm run build' first\n`,
    ]);
    const nothing = await attempt('uninstall');
    expect([nothing.code, nothing.stderr]).to.deep.equal([
      1,
      `install: nothing is installed in ${root}/usr/local/lib/virtproxyd\n`,
    ]);
    expect((await attempt('dance')).stderr).to.include(
      'usage: conf/install [install|uninstall|list]',
    );
    expect((await attempt('install', { PREFIX: 'usr' })).stderr).to.include('absolute path');
    expect(files()).to.be.empty;
  });
});
