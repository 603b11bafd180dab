import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { procedure } from '../../lib/rpc/session-messages.js';
import { account, type Finished, run } from '../peers/clients.js';
import { runningProcesses, workersOf } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { freshDirectory, until } from '../peers/waiting.js';

const script = fileURLToPath(new URL('../../../conf/init.d/virtproxyd', import.meta.url));
const openrcScript = fileURLToPath(new URL('../../../conf/openrc/virtproxyd', import.meta.url));
const program = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url));

const reason = process.getuid?.() === 0 ? null : 'needs root';

describe(`the init script${reason === null ? '' : ` (${reason})`}`, function () {
  this.timeout(60_000);
  let directory: string;
  let pidFile: string;

  before(function () {
    if (reason !== null) this.skip();
  });
  beforeEach(async () => {
    directory = await freshDirectory();
    pidFile = join(directory, 'virtproxyd.pid');
    await makeProgram();
    await makeScript();
    await settings();
    await configuration();
  });
  afterEach(async () => {
    const ours = runningProcesses().filter(({ command }) => command.includes(directory));
    for (const { pid } of ours) process.kill(pid, 'SIGKILL');
    await rm(directory, { recursive: true });
  });

  /** The program as it is installed, but from the build that these tests are part of. */
  async function makeProgram(): Promise<void> {
    const path = join(directory, 'virtproxyd');
    await writeFile(join(directory, 'package.json'), '{ "type": "module" }');
    await writeFile(
      path,
      `#!${process.execPath}\n` +
        `import { main } from '${program}';\n` +
        `const status = await main(process.argv.slice(2));\n` +
        `if (status !== null) process.exit(status);\n`,
    );
    await chmod(path, 0o755);
  }

  /** The script, with its settings here; `lsb` false: as on a system without LSB's functions. */
  async function makeScript({ lsb = true } = {}): Promise<void> {
    let text = await readFile(script, 'utf8');
    text = text.replaceAll('/etc/default/virtproxyd', join(directory, 'default'));
    if (!lsb) text = text.replaceAll('/lib/lsb/init-functions', join(directory, 'missing'));
    await writeFile(join(directory, 'init'), text, { mode: 0o755 });
  }

  function settings(more = ''): Promise<void> {
    return writeFile(
      join(directory, 'default'),
      `DAEMON=${directory}/virtproxyd\n` +
        `PIDFILE=${pidFile}\n` +
        `VIRTPROXYD_ARGS="-f ${directory}/virtproxyd.conf"\n${more}`,
    );
  }

  async function configuration(more = ''): Promise<void> {
    await writeFile(
      join(directory, 'virtproxyd.conf'),
      `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n${more}`,
    );
    await writeFile(join(directory, 'virtproxyd-cluster.ini'), '[cluster]\nworkers = 1\n');
  }

  const init = (...args: string[]): Promise<Finished> =>
    run('/bin/sh', [join(directory, 'init'), ...args]);
  const succeeds = async (action: string): Promise<void> => {
    const { code, stderr } = await init(action);
    expect(stderr, action).to.equal('');
    expect(code, action).to.equal(0);
  };
  const status = async (): Promise<number | null> => (await init('status')).code;
  const pid = async (): Promise<number> => Number(await readFile(pidFile, 'utf8'));
  const isAlive = (wanted: number): boolean => runningProcesses().some((one) => one.pid === wanted);

  async function expectServed(): Promise<void> {
    const client = await RawClient.connect(join(directory, 'libvirt-sock'));
    await client.call(procedure.authList);
    client.destroy();
  }

  for (const lsb of [true, false]) {
    it(`starts, reloads, restarts and stops the daemon ${lsb ? 'with' : 'without'} LSB's functions`, async () => {
      await makeScript({ lsb });
      expect(await status()).to.equal(3);
      await succeeds('start');
      const first = await pid();
      const { code, stdout } = await init('status');
      expect([code, stdout.trim()]).to.deep.equal([0, `virtproxyd is running (process ${first})`]);
      await expectServed();

      await succeeds('start');
      expect(await pid()).to.equal(first);

      const [worker = 0] = workersOf(first);
      await succeeds('reload');
      await until(() => !isAlive(worker), { what: 'the end of the old worker' });
      expect(await pid()).to.equal(first);
      await expectServed();

      await succeeds('restart');
      const second = await pid();
      expect(second).not.to.equal(first);
      expect(isAlive(first)).to.be.false;
      await expectServed();

      await succeeds('stop');
      expect(isAlive(second)).to.be.false;
      expect([existsSync(pidFile), existsSync(join(directory, 'libvirt-sock'))]).to.deep.equal([
        false,
        false,
      ]);
      expect(await status()).to.equal(3);
      await succeeds('stop');
    });
  }

  it('leaves a running daemon alone when its new configuration has a mistake', async () => {
    await succeeds('start');
    const primary = await pid();
    const workers = workersOf(primary);
    await configuration('max_clients = "many"\n');
    for (const action of ['reload', 'force-reload', 'restart', 'try-restart']) {
      const { code, stderr } = await init(action);
      expect(code, action).to.equal(6);
      expect(stderr, action)
        .to.include(`${directory}/virtproxyd.conf:4`)
        .and.include('max_clients');
    }
    expect(await pid()).to.equal(primary);
    expect(workersOf(primary)).to.deep.equal(workers);
    await expectServed();
  });

  it('says that a daemon which was killed is dead, and starts it again', async () => {
    await succeeds('start');
    const primary = await pid();
    process.kill(primary, 'SIGKILL');
    await until(() => !isAlive(primary), { what: 'the end of the daemon' });
    const { code, stdout } = await init('status');
    expect(code).to.equal(1);
    expect(stdout).to.include('not running').and.to.include(pidFile);
    await succeeds('start');
    expect(await status()).to.equal(0);
    await expectServed();
  });

  it('removes the PID file of a daemon that was killed', async () => {
    await writeFile(pidFile, '4194304\n');
    expect(await status()).to.equal(1);
    await succeeds('stop');
    expect(await status()).to.equal(3);
    expect(existsSync(pidFile)).to.be.false;
  });

  it('does not take another program for the daemon, though it has its number', async () => {
    const other: ChildProcess = spawn('sleep', ['600']);
    try {
      await writeFile(pidFile, `${other.pid ?? 0}\n`);
      expect(await status()).to.equal(1);
      expect((await init('reload')).code).to.equal(7);
      await succeeds('stop');
      expect(other.exitCode ?? other.signalCode).to.equal(null);
    } finally {
      other.kill('SIGKILL');
    }
  });

  it('admits that it cannot tell from a PID file that makes no sense', async () => {
    for (const text of ['', 'forty-two\n', '-1\n']) {
      await writeFile(pidFile, text);
      expect(await status(), text).to.equal(4);
    }
  });

  it('kills a daemon that does not end in time', async () => {
    await settings('STOP_SECONDS=1\n');
    await succeeds('start');
    const primary = await pid();
    process.kill(primary, 'SIGSTOP');
    await succeeds('stop');
    expect(isAlive(primary)).to.be.false;
    expect(await status()).to.equal(3);
    await until(() => workersOf(primary).length === 0, { what: 'the end of the workers' });
  });

  it('restarts with try-restart only what runs', async () => {
    await succeeds('try-restart');
    expect(await status()).to.equal(3);
    await succeeds('start');
    const first = await pid();
    await succeeds('try-restart');
    expect(await pid()).not.to.equal(first);
  });

  it('passes on why the daemon does not start', async () => {
    await writeFile(join(directory, 'libvirt-sock'), 'in the way');
    const { code, stderr } = await init('start');
    expect(code).to.equal(1);
    expect(stderr).to.include(`${directory}/libvirt-sock`);
    expect(await status()).to.equal(3);
  });

  it('has the exit statuses of LSB for what it cannot do', async () => {
    expect((await init('reload')).code, 'reload of nothing').to.equal(7);
    for (const args of [[], ['dance']]) {
      const { code, stderr } = await init(...args);
      expect(code).to.equal(2);
      expect(stderr).to.match(/^Usage: .*start\|stop\|restart/);
    }
    await settings(`DAEMON=${directory}/missing\n`);
    const missing = await init('start');
    expect(missing.code).to.equal(5);
    expect(missing.stderr).to.include(`${directory}/missing is not installed`);
  });

  it('lets others than root ask, but do nothing', async () => {
    await succeeds('start');
    const user = account('nobody');
    const init = (action: string): Promise<Finished> =>
      run('/bin/sh', [join(directory, 'init'), action], { user });
    expect((await init('status')).code).to.equal(0);
    for (const action of ['start', 'stop', 'restart', 'reload']) {
      expect((await init(action)).code, action).to.equal(4);
    }
    await expectServed();
  });

  it('for OpenRC does the same, as far as its functions go', async () => {
    // What openrc-run does around the functions of a script.
    const openrc = (...functions: string[]): Promise<Finished> =>
      run('/bin/sh', [
        '-c',
        'ebegin() { :; }; eend() { return $1; }; eerror() { echo "$*" >&2; }\n' +
          `. ${directory}/default; . ${openrcScript}; RC_CMD=restart; ${functions.join(' && ')}`,
      ]);
    const works = async (...functions: string[]): Promise<void> => {
      const { code, stderr } = await openrc(...functions);
      expect([code, stderr], functions.join(' ')).to.deep.equal([0, '']);
    };
    await works('start_pre', 'start');
    const first = await pid();
    await expectServed();
    const [worker = 0] = workersOf(first);
    await works('reload');
    await until(() => !isAlive(worker), { what: 'the end of the old worker' });
    await works('stop_pre', 'stop', 'start_pre', 'start');
    const second = await pid();
    expect(isAlive(first)).to.be.false;
    await works('upgrade');
    await until(async () => existsSync(pidFile) && ![0, second].includes(await pid()), {
      what: 'the PID file of the successor',
    });
    await expectServed();

    await configuration('max_clients = "many"\n');
    for (const functions of [['stop_pre', 'stop'], ['reload'], ['start_pre', 'start']]) {
      const { code, stderr } = await openrc(...functions);
      expect(code, functions.join(' ')).to.equal(1);
      expect(stderr).to.include('max_clients');
    }
    await expectServed();
    await works('stop');
    expect(existsSync(pidFile)).to.be.false;
    await works('stop');
  });
});
