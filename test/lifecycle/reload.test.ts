import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { encodeInt } from '../../lib/rpc/session-messages.js';
import type { RawClient } from '../peers/raw-client.js';
import { stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { lossesOf, openDescriptors, Service } from './service.js';

/** A client's number that no client under stress has. */
const ownNumber = 1_000_000;

async function isServed(client: RawClient): Promise<boolean> {
  return !client.ended && (await client.call(stressCall.hostname)).status === status.ok;
}

describe('a reload', function () {
  this.timeout(90_000);
  let service: Service;

  afterEach(() => service.end());

  it('under stress loses nothing, ten times, and leaves nothing open', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress({ withVirsh: true });
    const before = openDescriptors(service.pid);
    for (let each = 0; each < 10; each++) {
      await service.reload();
      await stress.flows();
    }
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
    await until(() => service.processes().length === 3, { what: 'the old workers to end' });
    await until(() => openDescriptors(service.pid) <= before, { what: 'descriptors to be closed' });
    expect(service.logged(/: error : /)).to.deep.equal([]);
  });

  it('under stress a hundred times in a second becomes a few, the last of which counts', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress();
    const start = performance.now();
    for (let sent = 1; sent <= 100; sent++) {
      if (sent === 100) await service.configure({ unix_sock_rw_perms: '0755' });
      service.signal('SIGHUP');
      await until(() => performance.now() - start > sent * 10, { what: 'the next one' });
    }
    const storm = performance.now() - start;
    await until(() => service.socketMode() === 0o755, { what: 'the last reload' });
    await stress.flows();
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
    // Each takes a worker's start, 100 ms and more.
    const reloads = service.logged(/reloaded: generation/).length;
    expect(reloads).to.be.within(1, 2 + storm / 100);
    expect(service.processes().length).to.be.at.most(3 + 2 * 2);
  });

  it('waits while two older generations serve clients, and comes when one is gone', async () => {
    service = await Service.start();
    const clients: RawClient[] = [];
    for (let each = 0; each < 2; each++) {
      clients.push(await service.proxy.open());
      await service.reload();
    }
    clients.push(await service.proxy.open());
    await service.configure({ unix_sock_rw_perms: '0755' });
    service.signal('SIGHUP');
    await service.says(/reload waits: 2 older generations still serve clients/);
    for (let each = 0; each < 3; each++) service.signal('SIGHUP');
    for (const client of clients) expect(await isServed(client)).to.be.true;
    expect(service.socketMode()).to.equal(0o700);
    clients.shift()?.destroy();
    await service.says(/reloaded: generation 4 serves/);
    expect(service.socketMode()).to.equal(0o755);
    // The signals that came meanwhile are one more reload, which waits again.
    await service.says(/reload waits/, 2);
    for (const client of clients) expect(await isServed(client)).to.be.true;
    for (const client of clients) client.destroy();
    await service.says(/reloaded: generation 5 serves/);
  });

  it('that waits is given up for the end, and for an upgrade, which reads everything anyway', async () => {
    service = await Service.start();
    const clients: RawClient[] = [];
    for (let each = 0; each < 2; each++) {
      clients.push(await service.proxy.open());
      await service.reload();
    }
    await service.configure({ unix_sock_rw_perms: '0755' });
    service.signal('SIGHUP');
    await service.says(/reload waits/);
    await service.upgrade();
    // It is in the PID file a moment before it applies what it has read.
    await until(() => service.socketMode() === 0o755, { what: 'the mode that was read anyway' });
    for (const client of clients) expect(await isServed(client)).to.be.true;
    for (let each = 0; each < 2; each++) {
      clients.push(await service.proxy.open());
      await service.reload();
    }
    service.signal('SIGHUP');
    await service.says(/reload waits/, 2);
    service.signal('SIGTERM');
    await Promise.all(clients.slice(2).map(({ end }) => end));
    for (const client of clients.slice(0, 2)) expect(await isServed(client)).to.be.true;
    for (const client of clients) client.destroy();
    await service.isGone();
  });

  it('with drain_timeout ends what is left in order: replies first', async () => {
    service = await Service.start({ cluster: 'drain_timeout = 1\nstop_timeout = 20\n' });
    const busy = await service.proxy.open();
    // New clients go where the fewest are: each of the two workers has one of these.
    const idle = [];
    for (let each = 0; each < 3; each++) idle.push(await service.proxy.open());
    service.daemon.withhold(ownNumber);
    const serial = busy.begin(stressCall.echo, encodeInt(ownNumber));
    await until(() => service.daemon.waiting(ownNumber) === 1, { what: 'the call to arrive' });
    const reloadedAt = performance.now();
    await service.reload();
    for (const client of idle) expect(await isServed(client)).to.be.true;
    await Promise.all(idle.map(({ end }) => end));
    expect(performance.now() - reloadedAt).to.be.above(1000);
    // Its call is late, and no other is taken any more.
    busy.begin(stressCall.hostname);
    expect(await isServed(await service.proxy.open())).to.be.true;
    expect(busy.ended).to.be.false;
    service.daemon.release(ownNumber);
    expect((await busy.replyTo(serial)).payload).to.deep.equal(encodeInt(ownNumber));
    await busy.end;
    expect(busy.frames).to.deep.equal([]);
    await until(() => service.processes().length === 3, { what: 'the old workers to end' });
  });

  it('that cannot open a socket changes nothing', async () => {
    service = await Service.start();
    await service.readyWorkers(2);
    const workers = service.processes();
    await service.configure({ unix_sock_dir: '/proc/nowhere' });
    service.signal('SIGHUP');
    await service.says(/reload failed, .*virtproxyd.conf:\d+: unix_sock_dir: Cannot make/);
    expect(service.processes()).to.deep.equal(workers);
    await service.configure({});
    await service.reload();
  });
});
