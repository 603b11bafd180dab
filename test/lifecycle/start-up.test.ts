import { expect } from 'chai';
import { existsSync } from 'node:fs';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClientProcess } from '../peers/clients.js';
import { startProgram } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { Misbehaviour } from './misbehaviour.js';
import { processesWith, serviceMarker } from './service.js';

describe('a signal while the daemon starts', function () {
  this.timeout(60_000);
  let directory: string;
  let daemon: ClientProcess;
  let misbehaviour: Misbehaviour;

  beforeEach(async () => {
    directory = await freshDirectory();
    misbehaviour = new Misbehaviour();
    const conf = `unix_sock_dir = "${directory}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n`;
    await writeFile(join(directory, 'virtproxyd.conf'), conf);
    const cluster = '[cluster]\nworkers = 2\nmin_workers = 2\n';
    await writeFile(join(directory, 'virtproxyd-cluster.ini'), cluster);
  });

  afterEach(async () => {
    await daemon.kill('SIGKILL');
    await until(() => processes().length === 0, { what: 'all processes to end' });
    await rm(directory, { recursive: true });
    misbehaviour.end();
  });

  const pidFile = (): string => join(directory, 'virtproxyd.pid');
  const processes = (): number[] => processesWith(`${serviceMarker}=${directory}`);

  function start(): void {
    const args = ['-v', '-f', join(directory, 'virtproxyd.conf'), '-p', pidFile()];
    const env = { [serviceMarker]: directory, ...misbehaviour.env() };
    daemon = startProgram(args, { env });
  }

  const signal = (name: NodeJS.Signals): boolean => process.kill(daemon.pid, name);

  const says = async (pattern: RegExp): Promise<void> => {
    await until(() => pattern.test(daemon.stderr), { what: `the log to say ${String(pattern)}` });
  };

  async function isGone(): Promise<void> {
    await daemon.finished;
    await until(() => processes().length === 0, { what: 'all processes to end' });
    const left = await readdir(directory);
    const configuration = ['virtproxyd-cluster.ini', 'virtproxyd.conf'];
    expect(left, daemon.stderr).to.have.members(configuration);
  }

  /** The moments that can be told from outside, from the process's first one on. */
  const moments: Record<string, () => unknown> = {
    'at once': () => true,
    'when the program runs': () => processes().length > 0,
    'when it has its PID file': () => existsSync(pidFile()),
    'when its first worker is forked': () => processes().length > 1,
    'when it listens': () => existsSync(join(directory, 'libvirt-sock')),
    'when its first worker is configured': () => misbehaviour.forks().length > 0,
  };

  for (const [when, isReached] of Object.entries(moments)) {
    it(`TERM ${when} ends it, and nothing is left`, async () => {
      start();
      await until(isReached, { what: when });
      signal('SIGTERM');
      await isGone();
    });
  }

  it('TERM before a worker is ready ends it, even if none ever is', async () => {
    misbehaviour.fail('wait', true);
    start();
    await until(() => misbehaviour.forks().length >= 2, { what: 'the workers to be forked' });
    const before = performance.now();
    signal('SIGTERM');
    await isGone();
    expect(performance.now() - before).to.be.below(4000);
  });

  it('TERM and INT together end it', async () => {
    start();
    await until(() => existsSync(pidFile()), { what: 'the PID file' });
    signal('SIGTERM');
    signal('SIGINT');
    await isGone();
  });

  it('HUP from the PID file on is a reload as soon as it serves', async () => {
    start();
    await until(() => existsSync(pidFile()), { what: 'the PID file' });
    for (let each = 0; each < 10; each++) signal('SIGHUP');
    await says(/reloaded: generation 2 serves/);
    const client = await RawClient.connect(join(directory, 'libvirt-sock'));
    await client.ping();
    client.destroy();
    signal('SIGTERM');
    await isGone();
  });

  it('HUP at once ends it or does nothing, and nothing is left', async () => {
    start();
    let hasEnded = false;
    void daemon.finished.then(() => (hasEnded = true));
    signal('SIGHUP');
    await until(() => hasEnded || daemon.stderr.includes('serving on'), {
      what: 'it to end or to serve',
    });
    await daemon.kill('SIGTERM');
    await isGone();
  });

  it('USR2 before it serves does nothing', async () => {
    start();
    await until(() => existsSync(pidFile()), { what: 'the PID file' });
    signal('SIGUSR2');
    await says(/serving on/);
    signal('SIGTERM');
    await isGone();
    expect(daemon.stderr).to.not.contain('upgrade');
  });

  it('workers that cannot start end it, with the reason, and nothing is left', async () => {
    for (const moment of ['load', 'start'] as const) {
      misbehaviour.fail(moment, true);
      start();
      expect((await daemon.finished).code).to.equal(1);
      expect(daemon.stderr).to.contain('virtproxyd: the workers end before they are ready');
      expect(daemon.stderr).to.contain(`told to crash`);
      await isGone();
      misbehaviour.fail(moment, false);
    }
  });
});
