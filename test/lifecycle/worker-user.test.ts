import { readFileSync } from 'node:fs';
import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { account, run, virsh } from '../peers/clients.js';
import { SaslAccounts } from '../peers/sasl-accounts.js';
import { stressHostname } from '../peers/stress-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';
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

  it('needs what SASL logins read: what is missing is named, and the commands named mend it', async () => {
    const directory = await freshDirectory();
    await chmod(directory, 0o700);
    const accounts = await SaslAccounts.create({
      directory,
      mechanisms: 'SCRAM-SHA-256',
      users: { fred: 'secret' },
    });
    service = await Service.start({
      cluster: `worker_user = ${user.name}\n`,
      env: accounts.serverEnv,
    });
    await service.configure({ auth_unix_rw: 'sasl' });
    service.signal('SIGHUP');
    await service.says(/reload failed/);
    const [complaint = ''] = service.logged(/reload failed/);
    expect(complaint)
      .to.match(/virtproxyd-cluster\.ini:\d+: \[cluster\] worker_user: /)
      .and.include(join(directory, 'sasl-SCRAM-SHA-256/sasldb2'));
    const commands = /: run (chgrp .*)\.$/.exec(complaint)?.[1] ?? '';
    expect((await run('sh', ['-c', commands])).code).to.equal(0);
    await service.reload();
    const login = async (password?: string): Promise<string> => {
      const env = await accounts.clientEnv('fred', password);
      const { stdout, stderr } = await virsh(service.proxy.uri(), ['hostname'], { env });
      return `${stdout}${stderr}`.trim();
    };
    expect(await login()).to.equal(stressHostname);
    expect(await login('wrong')).to.include('authentication failed');
    await rm(directory, { recursive: true });
  });
});
