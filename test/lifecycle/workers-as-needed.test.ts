import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { resultOf, startLoad, startStandIn } from '../bench/load.js';
import { buildPrograms, programsLacking, type Programs } from '../bench/programs.js';
import type { ClientProcess } from '../peers/clients.js';
import { Proxy } from '../peers/proxy.js';
import type { RawClient } from '../peers/raw-client.js';
import { freshDirectory, until } from '../peers/waiting.js';

const lacking = programsLacking();

/** A procedure that the stand-in daemon answers. */
const getHostname = 59;

/** Milliseconds that five seconds of quiet may take to come, on a machine that others use too. */
const longQuiet = 120_000;

describe(`workers as needed${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, function () {
  this.timeout(300_000);
  let programs: Programs;
  let directory: string;
  let socket: string;
  let daemon: ClientProcess | null = null;
  let load: ClientProcess | null = null;
  let proxy: Proxy;

  before(async function () {
    if (lacking !== undefined) this.skip();
    programs = buildPrograms();
    directory = await freshDirectory();
    socket = join(directory, 'daemon-sock');
    daemon = await startStandIn(programs.standIn, socket);
  });
  afterEach(async () => {
    await load?.kill();
    load = null;
    // A test that failed may have left some stopped.
    for (const pid of proxy.workers()) process.kill(pid, 'SIGCONT');
    await proxy.stop();
  });
  after(async () => {
    await daemon?.kill();
    if (lacking === undefined) await rm(directory, { recursive: true, force: true });
  });

  async function start(most: number): Promise<void> {
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      cluster: `[routes]\nqemu = ${socket}\n[cluster]\nworkers = ${most}\nmin_workers = 1\nworker_idle_timeout = 5\ndrain_timeout = 1\n`,
      args: ['--verbose'],
    });
    expect(proxy.workers()).to.have.length(1);
  }

  const lines = (pattern: RegExp): string[] =>
    proxy
      .log()
      .split('\n')
      .filter((line) => pattern.test(line));
  const says = (pattern: RegExp, count = 1, deadlineMs = 20_000): Promise<unknown> =>
    until(() => lines(pattern).length >= count, {
      what: `the log to have ${count} of ${String(pattern)}`,
      deadlineMs,
    });
  const isReady = /worker \d+ of generation \d+ is ready/;
  const openMany = async (count: number): Promise<RawClient[]> => {
    const clients: RawClient[] = [];
    while (clients.length < count) clients.push(await proxy.open());
    return clients;
  };
  async function expectServed(clients: readonly RawClient[]): Promise<void> {
    const replies = await Promise.all(clients.map((client) => client.call(getHostname)));
    for (const reply of replies) expect(reply.status).to.equal(status.ok);
  }

  it('become two under load, take the newcomers, and are one again after a time of quiet', async () => {
    await start(2);
    const [first = 0] = proxy.workers();
    const options = { socket: proxy.socket, clients: 4, seconds: 600, 'in-flight': 4 };
    load = startLoad(programs.generator, 'calls', options);
    await says(/workers: 2 instead of 1, which are \d+ % busy with 4 clients/);
    await says(isReady, 2);
    const newcomers = await openMany(2);
    process.kill(first, 'SIGSTOP');
    await expectServed(newcomers);
    process.kill(first, 'SIGCONT');
    const isEnd = /client \d+ .* bytes in, \d+ out, /;
    const ends = lines(isEnd).length;
    await load.kill('SIGINT');
    // Else the first still seems to have these clients, and gets none of those that come.
    await says(isEnd, ends + 4);

    const clients = [...newcomers, ...(await openMany(2))];
    await until(
      async () => {
        await expectServed(clients);
        await pause(200);
        return lines(/workers: 1 instead of 2, which are \d+ % busy with 4 clients/).length > 0;
      },
      { what: 'one to be let go of', deadlineMs: longQuiet },
    );
    // Longer than drain_timeout, which is for what an administrator asks for.
    await pause(2000);
    expect(proxy.workers()).to.have.length(2);
    const late = await openMany(1);
    await expectServed([...clients, ...late]);
    for (const client of clients) client.destroy();
    await until(() => proxy.workers().length === 1, { what: 'the other to end' });
    await expectServed(late);
    expect(lines(/instead of/)).to.have.length(2);
  });

  it('lose no call of a load that goes on while one more comes', async () => {
    await start(2);
    const options = { socket: proxy.socket, clients: 4, seconds: 5, 'in-flight': 4 };
    load = startLoad(programs.generator, 'calls', options);
    await says(isReady, 2);
    const { errors, count } = await resultOf(load);
    load = null;
    expect(errors).to.equal(0);
    expect(count).to.be.above(1000);
  });

  it('become two when the only one hangs, so that newcomers are served', async () => {
    await start(2);
    const [only = 0] = proxy.workers();
    const clients = await openMany(1);
    process.kill(only, 'SIGSTOP');
    await says(/workers: 2 instead of 1, which are 100 % busy with 1 clients/);
    await says(isReady, 2);
    await expectServed(await openMany(2));
    process.kill(only, 'SIGCONT');
    await expectServed(clients);
  });

  it('become more for many clients, and are as many after a reload and a crash', async () => {
    await start(3);
    const clients = await openMany(17);
    await says(/workers: 2 instead of 1, which are \d+ % busy with 17 clients/);
    await says(isReady, 2);
    proxy.signal('SIGHUP');
    await says(/generation 2 serves/);
    await says(/worker \d+ of generation 2 is ready/, 2);
    await says(/worker \d+ ended with status 0/, 1);
    await expectServed(clients.slice(-1));
    const [pid = 0] = lines(/worker \d+ of generation 2 is ready/).map((line) =>
      Number(/worker (\d+)/.exec(line)?.[1]),
    );
    process.kill(pid, 'SIGKILL');
    await says(/worker \d+ of generation 2 is ready/, 3);
    expect(lines(/instead of/)).to.have.length(1);
  });
});
