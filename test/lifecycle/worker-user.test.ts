import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { account } from '../peers/clients.js';
import { until } from '../peers/waiting.js';
import { Service } from './service.js';

const isRoot = process.getuid?.() === 0;
const user = account('nobody');

/** Fields of /proc/PID/status by their names. */
function statusOf(pid: number): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, 'utf8').split('\n');
  return Object.fromEntries(
    lines.map((line) => {
      const [name = '', ...rest] = line.split(':');
      return [name, rest.join(':').trim().replaceAll('\t', ' ')];
    }),
  );
}

const unprivileged = {
  Uid: Array.from({ length: 4 }, () => user.uid).join(' '),
  Gid: Array.from({ length: 4 }, () => user.gid).join(' '),
  Groups: '',
  CapInh: '0'.repeat(16),
  CapPrm: '0'.repeat(16),
  CapEff: '0'.repeat(16),
  CapAmb: '0'.repeat(16),
  NoNewPrivs: '1',
};

(isRoot ? describe : describe.skip)('worker_user', function () {
  this.timeout(60_000);
  let service: Service;

  afterEach(() => service.end());

  const workers = async (): Promise<number[]> => {
    await until(() => service.proxy.workers().length === 2, { what: 'two workers' });
    return service.proxy.workers();
  };

  it('is who all workers are, with nothing beside, those that replace others too', async () => {
    service = await Service.start({ cluster: `worker_user = ${user.name}\n` });
    const first = await workers();
    for (const pid of first) expect(statusOf(pid)).to.include(unprivileged);
    process.kill(first[0]!, 'SIGKILL');
    await service.says(/died: it is replaced now/);
    for (const pid of await workers()) expect(statusOf(pid)).to.include(unprivileged);
    expect(statusOf(service.pid).Uid).to.equal('0 0 0 0');
  });

  it('is taken at a reload, and given up again; what cannot be taken changes nothing', async () => {
    service = await Service.start();
    for (const pid of await workers()) expect(statusOf(pid).Uid).to.equal('0 0 0 0');
    await service.configureCluster(`worker_user = ${user.uid}\n`);
    await service.reload();
    for (const pid of await workers()) expect(statusOf(pid)).to.include(unprivileged);
    for (const [name, why] of [
      ['no-such-user', "There is no user 'no-such-user' on this host"],
      ['root', 'is root'],
      ['0', 'is root'],
    ] as const) {
      await service.configureCluster(`worker_user = ${name}\n`);
      service.signal('SIGHUP');
      await service.says(
        new RegExp(
          `reload failed.*virtproxyd-cluster\\.ini:\\d+: \\[cluster\\] worker_user: .*${why}`,
        ),
      );
    }
    for (const pid of await workers()) expect(statusOf(pid)).to.include(unprivileged);
    await service.configureCluster('');
    await service.reload();
    for (const pid of await workers()) expect(statusOf(pid).Uid).to.equal('0 0 0 0');
  });
});
