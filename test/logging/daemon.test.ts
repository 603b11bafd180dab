import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { ClientProcess } from '../peers/clients.js';
import { DatagramRecorder } from '../peers/datagram-recorder.js';
import { Proxy, startProgram } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';

/**
 * CONNECT_GET_HOSTNAME and CONNECT_GET_TYPE: the stand-in answers the first and refuses the second.
 */
const getHostname = 59;
const getType = 3;

/** One line of the log in libvirt's format. */
const wholeLine =
  /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: \d+: (debug|info|warning|error) : [a-z.-]+ : .+$/;

describe('the daemon’s log', function () {
  this.timeout(60_000);
  let directory: string;
  let proxy: Proxy | null;
  let qemu: StandInDaemon | null;
  let clients: RawClient[];
  const place = (name: string): string => join(directory, name);
  const read = (name: string): string => readFileSync(place(name), 'utf8');
  const routes = (): string => `[routes]\nqemu = ${place('qemu')}\n`;

  const start = async (conf: Record<string, string | number>, cluster = ''): Promise<void> => {
    qemu = await StandInDaemon.listen(place('qemu'));
    qemu.answer(getHostname, () => Buffer.alloc(0));
    qemu.answer(getType, () => new RpcError(errorCode.system, errorDomain.rpc, 'no'));
    proxy = await Proxy.start({ directory, conf, cluster: routes() + cluster });
  };
  const connected = async (): Promise<RawClient> => {
    const client = await proxy!.open('qemu:///system');
    clients.push(client);
    return client;
  };
  /** Replaces virtproxyd.conf and asks for a reload. */
  const reload = (conf: Record<string, string | number>): void => {
    const usual = { unix_sock_dir: directory, auth_unix_rw: 'none', auth_unix_ro: 'none' };
    const lines = Object.entries({ ...usual, ...conf });
    const text = lines.map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('');
    writeFileSync(place('virtproxyd.conf'), text);
    proxy!.signal('SIGHUP');
  };
  const has = (name: string, pattern: RegExp): Promise<string> =>
    until(() => statSync(place(name), { throwIfNoEntry: false }) && pattern.exec(read(name))?.[0], {
      what: `${pattern.source} in ${name}`,
      deadlineMs: 20_000,
    });

  beforeEach(async () => {
    directory = await freshDirectory();
    proxy = null;
    qemu = null;
    clients = [];
  });
  afterEach(async () => {
    for (const client of clients) client.destroy();
    await proxy?.stop();
    await qemu?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it('says at the end of each connection who it was and what it did', async () => {
    await start({ log_level: 2 });
    const client = await connected();
    await client.call(getHostname);
    await client.call(getType);
    const { bytesReceived } = client;
    const sent = client.socket.bytesWritten;
    client.destroy();
    const pattern = /info : rpc.session : client \d+ \(unix.* virtqemud.*/;
    const line = await until(() => pattern.exec(proxy!.log())?.[0], { what: 'the line' });
    expect(line).to.match(
      new RegExp(
        `^info : rpc.session : client \\d+ \\(unix, uid ${process.getuid?.()}, pid ${process.pid}\\): ` +
          `virtqemud, 2 calls, 1 errors, ${sent} bytes in, ${bytesReceived} out, ` +
          String.raw`\d+\.\d{3} s: the client left$`,
      ),
    );
  });

  it('never lets lines of several workers interleave, nor a client forge one', async () => {
    await start(
      { log_level: 1, log_outputs: `1:file:${place('log')}` },
      '[cluster]\nworkers = 3\n',
    );
    const forged = 'qemu:///x\n2026-01-01 00:00:00.000+0000: 1: error : pool : forged';
    await Promise.all(
      [...Array(30).keys()].map(async () => {
        const client = await connected();
        for (let count = 0; count < 20; count++) await client.call(getHostname);
        client.destroy();
        const forger = await RawClient.connect(proxy!.socket);
        await forger.openUri(forged);
        forger.destroy();
      }),
    );
    // At least one more came before them, to see whether the proxy serves.
    await until(() => (read('log').match(/the client left/g)?.length ?? 0) > 60, {
      what: 'the ends of all connections',
    });
    const lines = read('log').trimEnd().split('\n');
    expect(lines.filter((line) => !wholeLine.test(line))).to.deep.equal([]);
    expect(lines.filter((line) => /: error : pool : forged/.test(line) && !line.includes('\\x0a')))
      .to.be.empty;
    expect(new Set(lines.map((line) => /\+0000: (\d+):/.exec(line)?.[1])).size).to.equal(4);
    const calls = lines.filter((line) => / debug : rpc.relay : .*CONNECT_GET_HOSTNAME/.test(line));
    expect(calls).to.have.lengthOf(30 * 20 * 2);
  });

  it('opens its files anew at SIGHUP, even where the new configuration is wrong', async () => {
    const conf = { log_level: 2, log_outputs: `1:file:${place('log')}` };
    await start(conf, `[log]\naudit = ${place('audit')}\n`);
    expect(statSync(place('log')).mode & 0o777).to.equal(0o600);
    expect(statSync(place('audit')).mode & 0o777).to.equal(0o600);
    renameSync(place('log'), place('log.1'));
    rmSync(place('audit'));
    reload(conf);
    await has('log', /info : daemon.primary : reloaded: generation 2/);
    expect(read('log.1')).not.to.include('reloaded');
    expect(statSync(place('audit')).size).to.equal(0);
    renameSync(place('log'), place('log.2'));
    reload({ ...conf, log_level: 9, max_clients: 0 });
    const failed =
      /^.* error : daemon.primary : reload failed, the old configuration stays in force: .*/;
    await has('log', new RegExp(`${failed.source}log_level.*\n${failed.source}max_clients`, 'm'));
  });

  it('keeps the old outputs where new ones cannot be opened', async () => {
    await start({ log_level: 2, log_outputs: `1:file:${place('log')}` });
    reload({ log_outputs: `1:file:${place('other')} 1:file:${place('no/log')}` });
    await has(
      'log',
      /reload failed, the old configuration stays in force: Cannot open the log output file:\/.*\/no\/log: ENOENT.*change log_outputs/,
    );
    reload({ log_level: 2, log_outputs: `1:file:${place('other')}` });
    await has('other', /reloaded: generation 2/);
    // Without --verbose the level is the file's.
    await connected();
    expect(read('log')).not.to.include('generation 2 serves');
  });

  it('does not start without its outputs, and names the one', async () => {
    mkdirSync(place('conf'));
    writeFileSync(
      place('conf/virtproxyd.conf'),
      `unix_sock_dir = "${directory}"\nlog_outputs = "3:stderr 1:file:${place('no/log')}"\n`,
    );
    const args = ['-f', place('conf/virtproxyd.conf'), '-p', place('pid')];
    const { code, stderr } = await startProgram(args).finished;
    expect(code).to.equal(1);
    expect(stderr).to.match(
      /^virtproxyd: Cannot open the log output file:\/.*no\/log: ENOENT.*; make its directory or change/,
    );
  });

  it('changes levels of clients that are there at a reload', async () => {
    await start({ log_level: 2, log_outputs: `1:file:${place('log')}` });
    const client = await connected();
    await client.call(getHostname);
    reload({ log_level: 4, log_filters: '1:relay', log_outputs: `1:file:${place('log')}` });
    await until(
      async () => {
        await client.call(getHostname);
        return read('log').includes('CONNECT_GET_HOSTNAME');
      },
      { what: 'a line for a call in the old generation' },
    );
  });

  it('serves on while nobody reads its log, on a full disk, and ends in time', async () => {
    spawnSync('mkfifo', [place('fifo')]);
    const reader = openSync(place('fifo'), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      await start(
        { log_level: 1, log_outputs: `1:file:${place('fifo')} 1:file:/dev/full` },
        '[log]\naudit = /dev/full\n',
      );
      const client = await connected();
      // Each call makes two lines: more than a pipe holds.
      for (let count = 0; count < 1000; count++) await client.call(getHostname);
      const before = performance.now();
      expect(await proxy!.stop()).to.equal(0);
      expect(performance.now() - before).to.be.below(8000);
    } finally {
      closeSync(reader);
    }
  });

  it('goes to journald in the background', async function () {
    if (process.getuid?.() !== 0) this.skip();
    mkdirSync(place('journal'));
    const journal = new DatagramRecorder(place('journal/socket'));
    writeFileSync(
      place('virtproxyd.conf'),
      `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_level = 2\n`,
    );
    const program = fileURLToPath(new URL('../peers/run-proxy.js', import.meta.url));
    const pidFile = place('pid');
    // What the program leaves in the background ends with this shell, which waits for the pipe to
    // close.
    const script = `
      mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal &&
      mount --bind "$1/journal" /run/systemd/journal &&
      "$2" "$3" -d -f "$1/virtproxyd.conf" -p "$1/pid"
      echo "status $?"
      read -r _
      kill "$(cat "$1/pid")"
    `;
    const args = ['-m', 'sh', '-c', script, 'sh', directory, process.execPath, program];
    const shell = new ClientProcess('unshare', args);
    try {
      await until(() => /status 0/.exec(shell.stdout), {
        what: `the background process: ${shell.stderr}`,
        deadlineMs: 20_000,
      });
      const entry = await journal.found(/^MESSAGE=serving on /);
      const pid = readFileSync(pidFile, 'utf8').trim();
      expect(entry.split('\n').slice(1)).to.deep.equal([
        'PRIORITY=6',
        'SYSLOG_FACILITY=3',
        'SYSLOG_IDENTIFIER=virtproxyd',
        `SYSLOG_PID=${pid}`,
        'LIBVIRT_SOURCE=daemon.primary',
        'CODE_FUNC=daemon.primary',
        '',
      ]);
    } finally {
      shell.write('\n');
      shell.end();
      await shell.finished;
      journal.close();
    }
  });
});
