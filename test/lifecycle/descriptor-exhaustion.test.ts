import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { AdminClient } from '../admin/admin-client.js';
import { cpuSeconds } from '../bench/processes.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { fairTime, openDescriptors, Service } from './service.js';

const openFiles = 256;

/** More than all processes together have descriptors for. */
const clientCount = 700;

/** Descriptors that the program opens when it first needs them, and keeps. */
const firstUse = 4;

/** Seconds in which the service is looked at when nothing more can be done. */
const watched = 2;

/** Lowers or raises how many descriptors a running process may have. */
function limitOpenFiles(pid: number, limit: number): void {
  execFileSync('prlimit', [`--pid=${pid}`, `--nofile=${limit}:${openFiles}`]);
}

describe('a service without descriptors', function () {
  this.timeout(120_000);
  let service: Service;
  let clients: RawClient[] = [];

  beforeEach(async () => {
    service = await Service.start({ openFiles });
    await service.readyWorkers(2);
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await service.end();
  });

  const pids = (): number[] => [service.pid, ...service.proxy.workers()];

  /** Clients that connect and open. Those that are not served wait. */
  async function gather(): Promise<void> {
    clients = await Promise.all(
      Array.from({ length: clientCount }, () => RawClient.connect(service.proxy.socket)),
    );
    for (const client of clients) client.openUri('qemu:///system').catch(() => undefined);
    let last = -1;
    await until(
      async () => {
        const now = service.daemon.connections;
        const isStill = now === last;
        last = now;
        await pause(500);
        return isStill;
      },
      { what: 'the clients to be served as far as may be', deadlineMs: 30_000 },
    );
  }

  async function asksAdministrator(): Promise<string[]> {
    const admin = await AdminClient.connect(join(service.proxy.directory, 'libvirt-admin-sock'));
    try {
      await admin.admin(1, (writer) => writer.bool(false).unsigned(0));
      return await admin.servers();
    } finally {
      admin.destroy();
    }
  }

  it('says so at its start', async () => {
    await service.says(/the limit of open files, 256, is too low for max_clients \(5000\)/);
  });

  it('serves whom it can, lets others wait without spinning, and recovers', async () => {
    const before = pids().map(openDescriptors);
    await gather();
    const served = service.daemon.connections;
    expect(served, 'clients that are served').to.be.within(100, 2 * openFiles);
    expect(
      clients.filter(({ ended }) => ended),
      'clients turned away',
    ).to.have.length(0);
    await service.says(/warning : daemon.primary : too few descriptors are left/);

    const cpu = cpuSeconds(pids());
    await pause(watched * 1000);
    expect(cpuSeconds(pids()) - cpu, 'seconds of CPU').to.be.below(watched / 2);
    expect(await asksAdministrator()).to.include('virtproxyd');
    const client = clients.find(({ bytesReceived }) => bytesReceived > 0)!;
    expect((await client.call(stressCall.echo, encodeInt(1))).status).to.equal(status.ok);

    const limit = await fairTime(5000);
    const start = performance.now();
    for (const each of clients.splice(0)) each.destroy();
    const next = await RawClient.connect(service.proxy.socket);
    const opening = encodeOpenArguments({ name: 'qemu:///system', flags: 0 });
    const reply = await next.replyTo(next.begin(procedure.connectOpen, opening), 60_000);
    expect(reply.status).to.equal(status.ok);
    expect(performance.now() - start, 'milliseconds to recover').to.be.below(limit);
    next.destroy();
    const isAsBefore = (): boolean =>
      pids().every((pid, index) => openDescriptors(pid) <= before[index]! + firstUse);
    await until(isAsBefore, { what: 'the descriptors to be closed', deadlineMs: 20_000 });
    expect(service.logged(/too few descriptors/)).to.have.length.below(20);
    expect(service.logged(/: error : /)).to.deep.equal([]);
    expect(service.logged(/worker \d+ died/)).to.deep.equal([]);
  });

  it('lets clients wait while it can accept none, and says so', async () => {
    limitOpenFiles(service.pid, 3);
    const client = await RawClient.connect(service.proxy.socket);
    clients.push(client);
    const opened = client.openUri('qemu:///system');
    await service.says(/cannot accept on .*libvirt-sock: accept4 failed .*EMFILE/);
    const cpu = cpuSeconds(pids());
    await pause(watched * 1000);
    expect(cpuSeconds(pids()) - cpu, 'seconds of CPU').to.be.below(watched / 2);
    expect(service.logged(/cannot accept on/)).to.have.length.within(1, 2 * watched);
    limitOpenFiles(service.pid, openFiles);
    await opened;
    expect((await client.call(stressCall.echo, encodeInt(1))).status).to.equal(status.ok);
  });

  it('tells a client whose daemon cannot be connected to why', async () => {
    await gather();
    const inside = clients.filter(({ bytesReceived }) => bytesReceived > 0);
    const answers = await Promise.all(
      inside.map((client) =>
        client.replyTo(client.begin(stressCall.download, encodeInt(4)), 60_000),
      ),
    );
    const refused = answers.filter((answer) => answer.status === status.error);
    expect(refused).to.not.be.empty;
    for (const answer of refused) {
      const { message } = readError(answer);
      expect(message).to.match(
        /Failed to connect socket to '.*virtstoraged-sock': Too many open files/,
      );
    }
    expect(await asksAdministrator()).to.include('virtproxyd');
    for (const client of inside) {
      expect((await client.call(stressCall.echo, encodeInt(1))).status).to.equal(status.ok);
    }
    expect(service.logged(/worker \d+ died/)).to.deep.equal([]);
  });
});
