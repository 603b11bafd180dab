import { readFileSync } from 'node:fs';
import { chmod, copyFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { account, run, virsh, virtAdmin } from '../peers/clients.js';
import { freePorts } from '../peers/ports.js';
import { SaslAccounts } from '../peers/sasl-accounts.js';
import { Scrape } from '../peers/scrape.js';
import { stressHostname } from '../peers/stress-daemon.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { lossesOf, Service } from './service.js';
import { programVariable, secretsVariable } from './worker-attempts.js';

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

  it('keeps a worker from everything that is for root', async () => {
    const directory = await freshDirectory();
    const program = join(directory, 'id');
    await copyFile('/usr/bin/id', program);
    await chmod(program, 0o4755);
    const key = join(directory, 'key.pem');
    await writeFile(key, '', { mode: 0o600 });
    service = await Service.start({
      cluster: `worker_user = ${user.name}\n`,
      env: {
        NODE_OPTIONS: `--import=${new URL('worker-attempts.js', import.meta.url).href}`,
        [secretsVariable]: `/etc/shadow:${key}`,
        [programVariable]: program,
      },
    });
    await service.says(/attempt to gain/, 2);
    const outcomes = service
      .logged(/attempt to/)
      .map((line) => /attempt to (.*)$/.exec(line)?.[1] ?? '');
    expect([...new Set(outcomes)]).to.have.members([
      'read /etc/shadow: EACCES',
      `read ${key}: EACCES`,
      'signal the primary: EPERM',
      "read the primary's memory: EACCES",
      "read the primary's descriptors: EACCES",
      'become root: EPERM',
      'have the groups of root: EPERM',
      `gain by a set-user-ID program: user ${user.uid}`,
    ]);
    await rm(directory, { recursive: true });
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

  it('serves all the same, over TLS too, through a reload, an upgrade and a crash', async () => {
    const [port] = (await freePorts(1)) as [number];
    service = await Service.start({
      remote: true,
      cluster: `worker_user = ${user.name}\n[metrics]\nlisten = 127.0.0.1:${port}\n`,
    });
    const stress = await service.stress({ withVirsh: true });
    await service.reload();
    await stress.flows();
    const first = service.pid;
    await service.upgrade();
    await stress.flows();
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
    await until(() => !service.processes().includes(first), { what: 'the old version to end' });
    const pids = await service.readyWorkers(2);
    for (const pid of pids) expect(statusOf(pid)).to.include(unprivileged);
    process.kill(pids[0]!, 'SIGKILL');
    await service.says(new RegExp(`worker ${pids[0]!} died: it is replaced now`));
    await service.readyWorkers(2);
    const figures = await Scrape.of({ port });
    expect(figures.text).to.match(/^virtproxyd_worker_restarts_total\{reason="crash"\} 1$/m);
    expect(figures.text).to.match(/^virtproxyd_worker_resident_memory_bytes\S* [1-9]/m);
    const admin = join(service.proxy.directory, 'libvirt-admin-sock');
    const workers = await virtAdmin(admin, ['server-threadpool-info', 'virtproxyd']);
    expect(workers.stdout).to.match(/nWorkers\s*: 2/);
  });

  it('ends with the primary, though it hangs', async () => {
    service = await Service.start({ cluster: `worker_user = ${user.name}\n` });
    const pids = await workers();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    process.kill(service.pid, 'SIGKILL');
    await until(() => service.processes().length === 0, { what: 'the workers to end' });
    await service.forgetFiles();
  });
});
