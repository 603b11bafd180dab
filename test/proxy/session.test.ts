import { existsSync, readFileSync, statSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { encodeString } from '../../lib/rpc/session-messages.js';
import {
  account,
  ClientProcess,
  python,
  run,
  searchPath,
  socketUri,
  virsh,
  type Account,
} from '../peers/clients.js';
import { guestXml } from '../peers/guest.js';
import { missingPrograms } from '../peers/modular-host.js';
import { Proxy, runningProcesses, sessionEnvironment, startProgram } from '../peers/proxy.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

const getHostname = 59;
const uri = 'qemu:///session';
const standIn = fileURLToPath(new URL('../peers/run-stand-in-daemon.js', import.meta.url));
const isRoot = process.getuid?.() === 0;

describe(`session mode${isRoot ? '' : ' (skipped: needs root)'}`, function () {
  this.timeout(40_000);
  let user: Account;
  let directory: string;
  let programs: string;
  let runDirectory: string;
  let proxy: Proxy | null = null;

  before(async function () {
    if (!isRoot) this.skip();
    user = account('nobody');
    const trial = await run(process.execPath, ['--check', standIn], { user });
    // Where the project lies in somebody's closed home directory no other user can run it.
    if (trial.code !== 0) this.skip();
  });

  beforeEach(async () => {
    directory = await freshDirectory();
    programs = join(directory, 'programs');
    runDirectory = join(directory, 'run/libvirt');
    await mkdir(programs);
  });

  afterEach(async () => {
    await proxy?.stop();
    proxy = null;
    // Daemons that a proxy has started outlive it. Their command lines or environments name the
    // directory.
    for (const { pid } of belongingTo(directory)) process.kill(pid, 'SIGKILL');
    await until(() => belongingTo(directory).length === 0, { what: 'the daemons to end' });
    await rm(directory, { recursive: true, force: true });
  });

  const started = async (env: Record<string, string> = {}, cluster = ''): Promise<Proxy> => {
    proxy = await Proxy.start({ directory, user, env, cluster: `[cluster]\n${cluster}` });
    return proxy;
  };

  /** Installs a program that notes how it was started and becomes a stand-in daemon. */
  async function install(daemon: string, place = programs): Promise<void> {
    await mkdir(place, { recursive: true });
    const path = join(place, daemon);
    const socket = join(runDirectory, `${daemon}-sock`);
    await writeFile(
      path,
      `#!/bin/sh\necho "$0 $*" >> ${directory}/run/started\nenv > ${directory}/run/environment\n` +
        `exec ${process.execPath} ${standIn} ${socket}\n`,
    );
    await chmod(path, 0o755);
  }

  const startedPrograms = async (): Promise<string[]> =>
    (await readFile(join(directory, 'run/started'), 'utf8').catch(() => ''))
      .split('\n')
      .slice(0, -1);

  const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);

  it('keeps its files in the user’s run-time directory, for that user alone', async () => {
    const { socket, pidFile, pid } = await started();
    expect(socket).to.equal(join(runDirectory, 'libvirt-sock'));
    expect(mode(runDirectory)).to.equal('700');
    expect(mode(socket)).to.equal('700');
    expect(pidFile).to.equal(join(runDirectory, 'virtproxyd.pid'));
    expect(readFileSync(pidFile, 'utf8').trim()).to.equal(String(pid));
    expect(existsSync(`${socket}-ro`)).to.be.false;
    for (const path of [runDirectory, socket, pidFile]) {
      expect(statSync(path)).to.include({ uid: user.uid, gid: user.gid });
    }
    const knock = 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])';
    const { stderr } = await python(knock, [socket], { user: account('daemon') });
    expect(stderr).to.contain('PermissionError');
    proxy!.signal('SIGTERM');
    expect(await proxy!.exited).to.equal(0);
    expect(await readdir(runDirectory)).to.deep.equal([]);
  });

  it('opens a daemon that runs already, without starting another', async () => {
    await install('virtqemud');
    const { socket } = await started({ PATH: `${programs}:${searchPath}` });
    const daemon = await StandInDaemon.listen(join(runDirectory, 'virtqemud-sock'));
    await chmod(daemon.path, 0o777);
    daemon.answer(getHostname, () => encodeString('here'));
    const client = await RawClient.open(socket, uri);
    expect((await client.call(getHostname)).payload).to.deep.equal(encodeString('here'));
    expect(daemon.seen[1]!.payload.toString('latin1')).to.contain('qemu:///session');
    expect(await startedPrograms()).to.deep.equal([]);
    client.destroy();
    await daemon.stop();
  });

  it('starts a daemon from PATH whose socket is missing, and a secondary one', async () => {
    await install('virtqemud');
    await install('virtsecretd');
    const { socket } = await started({
      PATH: `${programs}:${searchPath}`,
      LISTEN_FDS: '0',
      LIBVIRT_DEBUG: '4',
      LIBVIRT_LOG_FILTERS: '4:rpc',
      LIBVIRT_LOG_OUTPUTS: '4:stderr',
    });
    const client = await RawClient.open(socket, uri);
    const hostname = await client.call(getHostname);
    expect(hostname.payload).to.deep.equal(encodeString('virtqemud-sock'));
    expect(await startedPrograms()).to.deep.equal([`${programs}/virtqemud --timeout=120`]);
    const environment = await readFile(join(directory, 'run/environment'), 'utf8');
    expect(environment).to.contain(`XDG_RUNTIME_DIR=${directory}/run\n`);
    expect(environment).to.not.match(/^(NODE_|LISTEN_|VIRTPROXYD_|LIBVIRT_DEBUG|LIBVIRT_LOG_)/m);

    // A second client finds it running.
    const other = await RawClient.open(socket, uri);
    expect((await other.call(getHostname)).status).to.equal(status.ok);
    expect(await startedPrograms()).to.have.length(1);

    other.begin(140);
    await until(async () => (await startedPrograms()).length === 2, {
      what: 'the secondary daemon',
    });
    expect(await startedPrograms()).to.include(`${programs}/virtsecretd --timeout=120`);
    client.destroy();
    other.destroy();
  });

  it('starts one daemon for many clients that come at once', async () => {
    await install('virtqemud');
    const { socket } = await started({ PATH: `${programs}:${searchPath}` }, 'workers = 1\n');
    const clients = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const client = await RawClient.connect(socket);
        const reply = await client.openUri(uri);
        expect(reply.status).to.equal(status.ok);
        return client;
      }),
    );
    expect(await startedPrograms()).to.have.length(1);
    for (const client of clients) client.destroy();
  });

  for (const variable of ['VIRTD_PATH', 'LIBVIRTD_PATH']) {
    it(`looks in the directory $${variable} before PATH`, async () => {
      await install('virtqemud');
      const first = join(directory, 'first');
      await install('virtqemud', first);
      const { socket } = await started({ PATH: `${programs}:${searchPath}`, [variable]: first });
      (await RawClient.open(socket, uri)).destroy();
      expect(await startedPrograms()).to.deep.equal([`${first}/virtqemud --timeout=120`]);
    });
  }

  it('opens for an empty URI a driver whose daemon is installed', async () => {
    await install('virtvboxd');
    const { socket } = await started({ PATH: `${programs}:${searchPath}` });
    const client = await RawClient.open(socket, null);
    const hostname = await client.call(getHostname);
    expect(hostname.payload).to.deep.equal(encodeString('virtvboxd-sock'));
    client.destroy();
  });

  it('starts nothing with LIBVIRT_AUTOSTART=0', async () => {
    await install('virtqemud');
    const env = { PATH: `${programs}:${searchPath}`, LIBVIRT_AUTOSTART: '0' };
    const { socket } = await started(env);
    const client = await RawClient.connect(socket);
    const path = join(runDirectory, 'virtqemud-sock');
    expect(readError(await client.openUri(uri))).to.include({
      code: 38,
      domain: 7,
      int1: 2,
      message: `Failed to connect socket to '${path}': No such file or directory`,
    });
    expect(await startedPrograms()).to.deep.equal([]);
    client.destroy();
  });

  it('says which socket is missing when no daemon is installed', async () => {
    const { socket } = await started();
    const client = await RawClient.connect(socket);
    const path = join(runDirectory, 'virtnosuchd-sock');
    expect(readError(await client.openUri('nosuch:///session'))).to.include({
      code: 38,
      message: `Failed to connect socket to '${path}': No such file or directory`,
    });
    client.destroy();
  });

  it('says so, and soon, when the daemon it starts ends at once', async () => {
    await writeFile(join(programs, 'virtqemud'), '#!/bin/sh\nexit 3\n');
    await chmod(join(programs, 'virtqemud'), 0o755);
    const { socket } = await started({ PATH: `${programs}:${searchPath}` });
    const client = await RawClient.connect(socket);
    const error = readError(await client.openUri(uri));
    expect(error).to.include({ code: 38 });
    expect(error.message).to.contain(join(runDirectory, 'virtqemud-sock'));
    await until(() => proxy!.log().includes('virtqemud ended with status 3'), {
      what: 'the reason in the log',
    });
    client.destroy();
  });

  describe('without a runtime directory', () => {
    /** The program, in the background until a test's end. */
    const launch = async (env: Record<string, string>): Promise<string> => {
      const cache = join(directory, 'cache');
      await mkdir(cache, { recursive: true });
      await chmod(cache, 0o777);
      const daemon = startProgram([], { user, env: { ...env, XDG_CACHE_HOME: cache } });
      ends.push(() => daemon.kill('SIGTERM'));
      const last = join(cache, 'libvirt/virtproxyd-admin-sock');
      await until(() => existsSync(last), { what: `${last}; it said: ${daemon.stderr}` });
      return cache;
    };
    const ends: (() => Promise<unknown>)[] = [];
    afterEach(async () => {
      for (const end of ends.splice(0)) await end();
    });

    it('has sockets, PID file and daemons in $XDG_CACHE_HOME/libvirt, where virsh looks for them', async () => {
      const home = join(directory, 'home');
      const cache = await launch({ HOME: home, LIBVIRT_AUTOSTART: '0' });
      expect(await readdir(join(cache, 'libvirt'))).to.include.members([
        'libvirt-sock',
        'libvirt-admin-sock',
        'virtproxyd.pid',
      ]);
      const daemon = await StandInDaemon.listen(join(cache, 'libvirt/virtqemud-sock'));
      ends.push(() => daemon.stop());
      await chmod(daemon.path, 0o777);
      daemon.answer(getHostname, () => encodeString('in-the-cache'));
      const env = { HOME: home, XDG_CACHE_HOME: cache, LIBVIRT_AUTOSTART: '0' };
      const target = 'qemu:///session?mode=legacy';
      // The stand-in knows this one call; virsh would wait for others at its end.
      const client = new ClientProcess('virsh', ['-c', target, 'hostname'], { user, env });
      ends.push(() => client.kill());
      await until(() => client.stdout.includes('in-the-cache'), {
        what: `virsh's answer; it said: ${client.stderr}`,
      });
    });

    it('serves a user whom the account database does not know and who has no HOME', async () => {
      const stranger = { name: 'nobody at all', uid: 47_110_815, gid: 47_110_815 };
      const env = { XDG_RUNTIME_DIR: '', XDG_CACHE_HOME: '', HOME: '' };
      const checked = startProgram(['--check-config'], { user: stranger, env });
      expect(await checked.finished).to.include({ code: 0, stderr: '' });
      expect(checked.stdout).to.match(/no home directory.*\nThe configuration is valid\.\n$/);
      const homeless = startProgram([], { user: stranger, env });
      const { code, stderr } = await homeless.finished;
      expect(code).to.equal(1);
      expect(stderr).to.match(
        /^virtproxyd: .*Cannot make the directory '\/\.cache\/libvirt': .* no home directory: set XDG_RUNTIME_DIR .*\n$/,
      );
      const run = join(directory, 'run');
      await mkdir(run, { mode: 0o777 });
      await chmod(run, 0o777);
      const served = startProgram([], { user: stranger, env: { ...env, XDG_RUNTIME_DIR: run } });
      ends.push(() => served.kill('SIGTERM'));
      await until(() => existsSync(join(run, 'libvirt/libvirt-sock')), {
        what: `its socket; it said: ${served.stderr}`,
      });
    });
  });

  const missing = isRoot ? missingPrograms() : [];
  it(`serves virsh with a real daemon that it starts${missing.length > 0 ? ` (skipped: needs ${missing.join(', ')})` : ''}`, async function () {
    if (missing.length > 0) this.skip();
    // libvirtd plays virtqemud: in a directory of its own, where its socket's name is another.
    const own = join(directory, 'run/libvirtd');
    const link = join(runDirectory, 'virtqemud-sock');
    const conf = join(directory, 'libvirtd.conf');
    await writeFile(conf, `unix_sock_dir = "${own}"\nlisten_tls = 0\n`);
    await writeFile(
      join(programs, 'virtqemud'),
      `#!/bin/sh\nmkdir -p ${own}\nln -s ${own}/libvirt-sock ${link}\n` +
        `exec libvirtd --config ${conf} --pid-file ${own}/pid "$@"\n`,
    );
    await chmod(join(programs, 'virtqemud'), 0o755);
    const { socket } = await started({ PATH: `${programs}:${searchPath}` });
    const options = { user, env: sessionEnvironment(directory) };
    const target = socketUri('qemu', socket, '/session');
    const xml = guestXml({ name: 'session-guest' });
    const defined = await virsh(target, ['define', '/dev/stdin'], { ...options, input: xml });
    expect(defined.code, `${defined.stdout}${defined.stderr}`).to.equal(0);
    const listed = await virsh(target, ['list', '--all', '--name'], options);
    expect(listed.stdout).to.contain('session-guest');
    expect((await virsh(target, ['uri'], options)).stdout).to.contain('/session');
  });
});

/**
 * Processes that a test has left: those whose command line, or environment, names its directory.
 */
function belongingTo(directory: string): { pid: number }[] {
  return runningProcesses().filter(({ pid, command }) => {
    if (command.includes(directory)) return true;
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`${directory}/`);
    } catch {
      return false;
    }
  });
}
