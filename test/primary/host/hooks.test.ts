import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type HookEvent, runHooks } from '../../../lib/primary/host/hooks.js';
import { runningProcesses } from '../../peers/proxy.js';
import { until } from '../../peers/waiting.js';

describe('primary/hooks', () => {
  let directory: string;
  let file: string;
  let successes: string[];
  let errors: string[];
  const log = {
    debug: (message: string): unknown => successes.push(message),
    error: (message: string): unknown => errors.push(message),
  };

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'hooks-'));
    file = join(directory, 'daemon');
    successes = [];
    errors = [];
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const script = (path: string, body: string, mode = 0o755): void => {
    writeFileSync(path, `#!/bin/sh\n${body}\n`);
    chmodSync(path, mode);
  };
  const run = (
    event: HookEvent,
    {
      env = {},
      timeoutSeconds = 10,
    }: { env?: Record<string, string>; timeoutSeconds?: number } = {},
  ): Promise<void> =>
    runHooks(event, { file, env: { PATH: '/usr/bin:/bin', ...env }, timeoutSeconds, log });
  const said = (): string[] => readFileSync(join(directory, 'said'), 'utf8').trim().split('\n');
  it('tells the hook what happens, as libvirt does', async () => {
    script(file, `echo "$#: $*" >>${directory}/said`);
    await run('start');
    await run('reload');
    await run('shutdown');
    expect(said()).to.deep.equal([
      '4: - start - start',
      '4: - reload begin SIGHUP',
      '4: - shutdown - shutdown',
    ]);
    expect(errors).to.be.empty;
  });

  it('then runs the executable files of daemon.d, in alphabetical order', async () => {
    mkdirSync(`${file}.d`);
    script(file, `echo main >>${directory}/said`);
    for (const name of ['20-b', '10-a', '30-c']) {
      script(join(`${file}.d`, name), `echo ${name} $2 >>${directory}/said`);
    }
    script(join(`${file}.d`, '15-off'), `echo off >>${directory}/said`, 0o644);
    mkdirSync(join(`${file}.d`, '16-directory'));
    await run('start');
    expect(said()).to.deep.equal(['main', '10-a start', '20-b start', '30-c start']);
  });

  it('does nothing where there is no hook, or none that may be executed', async () => {
    await run('start');
    script(file, `echo x >>${directory}/said`, 0o644);
    await run('start');
    rmSync(file);
    mkdirSync(file);
    await run('start');
    expect([...successes, ...errors]).to.be.empty;
  });

  it('gives it no input, no descriptor and no variable that is only for the daemon', async () => {
    script(
      file,
      // Not by a pipe, whose ends the shell itself has for a moment.
      `ls /proc/$$/fd >${directory}/open\n` +
        `{ readlink /proc/self/fd/0; pwd; tr '\\n' ' ' <${directory}/open; echo; env | sort; } >${directory}/said`,
    );
    const env = {
      LANG: 'C.UTF-8',
      LIBVIRT_DEBUG: '1',
      LIBVIRT_LOG_FILTERS: '1:*',
      LIBVIRT_LOG_OUTPUTS: '1:stderr',
      LISTEN_FDS: '2',
      LISTEN_FDNAMES: 'a:b',
      LISTEN_PID: '1',
      NODE_CHANNEL_FD: '3',
      NODE_UNIQUE_ID: '1',
      NODE_OPTIONS: '--no-warnings',
      NOTIFY_SOCKET: '/run/systemd/notify',
      VIRTPROXYD_READY_FD: '3',
      WATCHDOG_PID: '1',
      WATCHDOG_USEC: '1000000',
    };
    await run('start', { env });
    const [input, cwd, descriptors, ...variables] = said();
    expect(input).to.equal('/dev/null');
    expect(cwd).to.equal('/');
    // The shell's own are from 10 up.
    expect(
      descriptors
        ?.trim()
        .split(' ')
        .filter((fd) => Number(fd) < 10),
    ).to.deep.equal(['0', '1', '2']);
    expect(variables).to.include.members(['LANG=C.UTF-8', 'PATH=/usr/bin:/bin']);
    expect(variables.join('\n')).not.to.match(/LIBVIRT|LISTEN|NODE|NOTIFY|VIRTPROXYD|WATCHDOG/);
  });

  it('logs status and words of one that fails, and goes on', async () => {
    mkdirSync(`${file}.d`);
    script(file, 'echo out; echo "cannot do it" >&2; exit 3');
    script(join(`${file}.d`, 'next'), `echo next >>${directory}/said`);
    await run('reload');
    expect(errors).to.have.lengthOf(1);
    expect(errors[0]).to.include(`hook ${file} - reload begin SIGHUP failed with status 3: `);
    expect(errors[0]).to.include('cannot do it').and.to.include('out');
    expect(said()).to.deep.equal(['next']);
  });

  it('logs one that a signal ends, and one that cannot be started', async () => {
    script(file, 'kill -TERM $$');
    await run('start');
    writeFileSync(file, '#!/nonexistent/interpreter\n');
    await run('start');
    expect(errors).to.have.lengthOf(2);
    expect(errors[0]).to.include('was killed by SIGTERM');
    expect(errors[1]).to.include('cannot be run').and.to.include('ENOENT');
  });

  it('kills one that hangs, with everything it has started', async () => {
    script(file, `sleep 6${process.pid} & echo "waits for $!"; wait`);
    const start = performance.now();
    await run('start', { timeoutSeconds: 0.3 });
    expect(performance.now() - start).to.be.within(250, 5000);
    expect(errors).to.have.lengthOf(1);
    expect(errors[0]).to.match(/was killed after 0.3 seconds: waits for \d+$/);
    await until(
      () => !runningProcesses().some(({ command }) => command === `sleep 6${process.pid}`),
      { what: 'the end of what the hook has started' },
    );
  });

  it('does not wait for what a hook leaves in the background', async () => {
    script(file, `sleep 7${process.pid} & echo $! >${directory}/said; echo done`);
    const start = performance.now();
    await run('start');
    const pid = Number(said()[0]);
    try {
      expect(performance.now() - start).to.be.below(5000);
      expect(errors).to.be.empty;
      expect(successes.at(-1)).to.match(/succeeded: done$/);
      expect(runningProcesses().some((running) => running.pid === pid)).to.be.true;
    } finally {
      process.kill(pid);
    }
  });

  it('keeps only the beginning of long output', async () => {
    script(file, 'yes | head -c 300000; exit 1');
    await run('start');
    expect(errors[0]?.length).to.be.below(4300);
  });
});
