import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { floodRows, type FloodRow } from '../bench/flood-rows.js';
import { resultOf, runLoad, startLoad, startStandIn } from '../bench/load.js';
import { memoryBytes, withMostMemory } from '../bench/processes.js';
import { buildPrograms, programsLacking, type Programs } from '../bench/programs.js';
import { account, type ClientProcess } from '../peers/clients.js';
import { Proxy, type ProxyOptions } from '../peers/proxy.js';
import { freshDirectory } from '../peers/waiting.js';

const lacking = programsLacking();
const isRoot = process.getuid?.() === 0;

const mebibyte = 1024 * 1024;

/**
 * What others may cost a client: microseconds of latency at the 99th percentile, far from what `npm
 * run bench -- --rows flood` shows and near to what somebody would notice, and bytes by which all
 * processes of the proxy grow.
 */
interface Bounds {
  readonly latency: number;
  readonly growth: number;
}
const oneFlooder: Bounds = { latency: 100_000, growth: 128 * mebibyte };
const thousands: Bounds = { latency: 500_000, growth: 320 * mebibyte };

/** Lines that a daemon may log, however often it meets its limits. */
const mostLines = 10;

describe(`a client beside others that flood${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, function () {
  this.timeout(60_000);
  let programs: Programs;
  let daemon: ClientProcess | null = null;
  let socket: string;
  let directory: string;
  let proxy: Proxy;
  let flooder: ClientProcess | null = null;

  before(async function () {
    if (lacking !== undefined) this.skip();
    programs = buildPrograms();
    directory = await freshDirectory();
    socket = join(directory, 'daemon-sock');
    daemon = await startStandIn(programs.standIn, socket);
  });
  afterEach(async () => {
    await flooder?.kill();
    flooder = null;
    await proxy.stop();
  });
  after(async () => {
    await daemon?.kill();
    if (lacking === undefined) await rm(directory, { recursive: true, force: true });
  });

  async function start(conf: NonNullable<ProxyOptions['conf']> = {}): Promise<void> {
    proxy = await Proxy.start({
      directory: join(directory, 'run'),
      conf,
      cluster: `[routes]\nqemu = ${socket}\n[cluster]\nworkers = 2\n`,
    });
  }

  /** Has a client call for a second while others flood. */
  async function expectUnharmed(flood: () => ClientProcess, bounds: Bounds): Promise<void> {
    const workers = proxy.workers();
    const pids = [proxy.pid, ...workers];
    const before = memoryBytes(pids);
    const { result, most } = await withMostMemory(pids, () => {
      flooder = flood();
      return runLoad(programs.generator, 'calls', { socket: proxy.socket, seconds: 1 });
    });
    expect(result.count).to.be.above(10);
    expect(result.latency?.p99).to.be.below(bounds.latency);
    expect(proxy.workers()).to.have.members(workers);
    expect(most - before).to.be.below(bounds.growth);
  }

  const flood =
    ({ mode, options }: FloodRow) =>
    (): ClientProcess =>
      startLoad(programs.generator, mode, { socket: proxy.socket, seconds: 600, ...options });

  for (const row of floodRows) {
    it(`is served, in bounded memory: ${row.title}`, async () => {
      await start({ max_clients: 6000, max_queued_clients: 6000, unix_sock_rw_perms: '0700' });
      const hasThousands = Number(row.options['clients'] ?? 1) > 1000;
      await expectUnharmed(flood(row), hasThousands ? thousands : oneFlooder);
      expect(proxy.log()).to.equal('');
    });
  }

  it('is served where 5 000 meet the limits, which the log says once with their number', async function () {
    // Root is let in whatever the limits say, and may be somebody else.
    if (!isRoot) this.skip();
    await start({ max_clients: 20, max_queued_clients: 10, unix_sock_rw_perms: '0777' });
    const generator = join(directory, 'generator');
    await copyFile(programs.generator, generator);
    const options = { socket: proxy.socket, clients: 5000, seconds: 2 };
    const floods = (): ClientProcess =>
      startLoad(generator, 'opens', options, { user: account('nobody') });
    await expectUnharmed(floods, oneFlooder);
    const { errors } = await resultOf(flooder!);
    expect(errors).to.be.above(4000);
    const lines = proxy.log().trimEnd().split('\n');
    expect(lines.length).to.be.below(mostLines);
    const told = lines.filter((line) => line.includes(' warning : rpc.reception : '));
    expect(told[0]).to.match(/max_clients \(20\) .* turned away 1 so far/);
  });
});
