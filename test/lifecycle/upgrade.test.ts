import { expect } from 'chai';
import { existsSync } from 'node:fs';
import { status } from '../../lib/rpc/frame.js';
import type { RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { Misbehaviour } from './misbehaviour.js';
import { descriptorsOf, lossesOf, openDescriptors, Service } from './service.js';

async function isServed(client: RawClient): Promise<boolean> {
  return !client.ended && (await client.call(stressCall.hostname)).status === status.ok;
}

describe('an upgrade', function () {
  this.timeout(90_000);
  let service: Service;

  afterEach(() => service.end());

  const running = (pid: number): boolean => service.processes().includes(pid);

  it('under stress loses nothing, five times; PID file and processes follow', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress({ withVirsh: true });
    await service.readyWorkers(2);
    const before = openDescriptors(service.pid);
    const old: number[] = [];
    for (let each = 0; each < 5; each++) {
      old.push(service.pid);
      await service.upgrade();
      await stress.flows();
    }
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
    await until(() => !old.some(running), { what: 'the old versions to end' });
    await until(() => service.processes().length === 3, { what: 'their workers to end' });
    await until(() => openDescriptors(service.pid) <= before, { what: 'descriptors to be closed' });
    expect(service.logged(/: error : /)).to.deep.equal([]);
  });

  it('leaves the clients there are with the old version until they leave', async () => {
    service = await Service.start();
    const first = service.pid;
    const old = await service.proxy.open();
    await service.upgrade();
    const fresh = await service.proxy.open();
    process.kill(first, 'SIGHUP');
    await service.says(/reload ignored: process \d+ has taken over/);
    await service.reload();
    expect(await isServed(old)).to.be.true;
    expect(await isServed(fresh)).to.be.true;
    expect(running(first)).to.be.true;
    old.destroy();
    await until(() => !running(first), { what: 'the old version to end' });
    expect(await isServed(fresh)).to.be.true;
    fresh.destroy();
  });

  it('serves those that wait for a place in the old version', async () => {
    const limits = { max_clients: 1, max_anonymous_clients: 1 };
    service = await Service.start({ remote: true, conf: limits });
    const first = service.pid;
    const connect = (): Promise<RawClient> => connectTcp(Number(service.conf['tcp_port']));
    const [inside, waiting] = [await connect(), await connect()];
    const reply = waiting.openUri('qemu:///system');
    expect((await inside.openUri('qemu:///system')).status).to.equal(status.ok);
    expect(waiting.frames).to.deep.equal([]);
    await service.upgrade();
    expect((await reply).status).to.equal(status.ok);
    for (const client of [inside, waiting]) {
      expect(await isServed(client)).to.be.true;
      client.destroy();
    }
    await until(() => !running(first), { what: 'the old version to end' });
  });

  it('whose old version is ended costs only its clients', async () => {
    service = await Service.start();
    const first = service.pid;
    const old = await service.proxy.open();
    await service.upgrade();
    const fresh = await service.proxy.open();
    process.kill(first, 'SIGTERM');
    await old.end;
    await until(() => !running(first), { what: 'the old version to end' });
    expect(await isServed(fresh)).to.be.true;
    expect(await isServed(await service.proxy.open())).to.be.true;
  });

  it('the new version gives its workers none of the listening sockets', async () => {
    service = await Service.start({ remote: true });
    await service.upgrade();
    const workers = await service.readyWorkers(2);
    const sockets = (pid: number): string[] => {
      try {
        return descriptorsOf(pid).filter((target) => target.startsWith('socket:'));
      } catch (error) {
        // Those of the old version are on their way out.
        if (running(pid)) throw error;
        return [];
      }
    };
    const client = await service.proxy.open();
    client.destroy();
    const shared = sockets(service.pid);
    expect(shared).to.not.be.empty;
    for (const worker of workers.filter(running)) {
      expect(sockets(worker).filter((socket) => shared.includes(socket))).to.deep.equal([]);
    }
  });

  describe('that fails', () => {
    const attempts: Record<string, { spoil: () => Promise<void> | void; says: RegExp }> = {
      'for a wrong configuration': {
        spoil: () => service.configure({ max_clients: 'many' }),
        says: /virtproxyd: .*virtproxyd.conf:\d+: .*max_clients/,
      },
      'for an unknown group': {
        spoil: () => service.configure({ unix_sock_group: 'nobody-knows-it' }),
        says: /virtproxyd: .*virtproxyd.conf:\d+: unix_sock_group: There is no group/,
      },
      'for a socket it cannot open': {
        spoil: () => service.configure({ tls_port: '1', listen_addr: '192.0.2.1' }),
        says: /virtproxyd: .*Cannot listen on '192.0.2.1:\d+'/,
      },
      'for workers that do not start': {
        spoil: () => misbehaviour.fail('start', true),
        says: /virtproxyd: the workers end before they are ready/,
      },
    };
    let misbehaviour: Misbehaviour;

    beforeEach(async () => {
      misbehaviour = new Misbehaviour();
      service = await Service.start({ remote: true, env: misbehaviour.env() });
    });

    afterEach(() => misbehaviour.end());

    for (const [why, { spoil, says }] of Object.entries(attempts)) {
      it(`${why} changes nothing, and the next can succeed`, async () => {
        const stress = await service.stress();
        const { pid } = service;
        await spoil();
        service.signal('SIGUSR2');
        await service.says(/upgrade failed, this version goes on/);
        await service.says(says);
        expect(service.pid).to.equal(pid);
        await stress.flows();
        misbehaviour.fail('start', false);
        await service.configure({});
        await service.upgrade();
        await stress.flows();
        expect(lossesOf(await stress.stop())).to.deep.equal([]);
      });
    }
  });

  it('takes a reload along that was asked for meanwhile, and ends with the old version', async () => {
    service = await Service.start();
    const { pid } = service;
    service.signal('SIGUSR2');
    await until(() => service.processes().length > 3, { what: 'the new version to be started' });
    process.kill(pid, 'SIGHUP');
    await service.says(/reloaded: generation 2 serves/);
    expect(service.pid).to.not.equal(pid);
    service.signal('SIGUSR2');
    const before = service.processes().length;
    await until(() => service.processes().length > before, { what: 'another to be started' });
    service.signal('SIGTERM');
    await service.isGone();
    expect(existsSync(service.proxy.pidFile)).to.be.false;
  });
});
