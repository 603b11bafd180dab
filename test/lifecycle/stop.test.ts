import { expect } from 'chai';
import { encodeInt } from '../../lib/rpc/session-messages.js';
import { echoOf, stressCall } from '../peers/stress-daemon.js';
import { until } from '../peers/waiting.js';
import { Misbehaviour } from './misbehaviour.js';
import { fairTime, lossesOf, Service } from './service.js';

/** A client's number that no client under stress has. */
const ownNumber = 1_000_000;

describe('the end of the daemon', function () {
  this.timeout(60_000);
  let service: Service;

  afterEach(() => service.end());

  it('by TERM under stress: replies under way go out whole, nobody else is served', async () => {
    service = await Service.start({ remote: true });
    const stress = await service.stress({ lifetimeMs: Infinity });
    const client = await service.proxy.open();
    service.daemon.withhold(ownNumber);
    const payload = Buffer.concat([encodeInt(ownNumber), Buffer.alloc(100_000)]);
    const serial = client.begin(stressCall.echo, payload);
    await until(() => service.daemon.waiting(ownNumber) === 1, { what: 'the call to arrive' });
    const stoppedAt = performance.now();
    service.signal('SIGTERM');
    await service.says(/stopping: SIGTERM/);
    service.daemon.release(ownNumber);
    expect((await client.replyTo(serial)).payload).to.deep.equal(echoOf(payload));
    await client.end;
    await service.isGone();
    const { losses } = await stress.stop();
    expect(losses.filter(({ kind }) => kind === 'bytes' || kind === 'event')).to.deep.equal([]);
    expect(losses.filter(({ at }) => at < stoppedAt)).to.deep.equal([]);
  });

  it('comes within stop_timeout, whatever clients and daemons do', async () => {
    service = await Service.start({ remote: true, cluster: 'stop_timeout = 1\n' });
    const stress = await service.stress({ lifetimeMs: Infinity });
    const client = await service.proxy.open();
    service.daemon.withhold(ownNumber);
    client.begin(stressCall.echo, encodeInt(ownNumber));
    await until(() => service.daemon.waiting(ownNumber) === 1, { what: 'the call to arrive' });
    const before = performance.now();
    service.signal('SIGTERM');
    await service.isGone();
    expect(performance.now() - before).to.be.within(1000, 1000 + (await fairTime(1000)));
    await stress.stop();
  });

  describe('by the death of the primary process', () => {
    let misbehaviour: Misbehaviour;

    beforeEach(() => {
      misbehaviour = new Misbehaviour();
    });

    afterEach(() => misbehaviour.end());

    it('leaves no orphan after a second, not even one that hangs or drains', async () => {
      service = await Service.start({ remote: true, env: misbehaviour.env() });
      const staying = await service.proxy.open();
      await service.reload();
      const [worker] = (await service.readyWorkers(3)).slice(-1);
      const stress = await service.stress({ lifetimeMs: Infinity });
      misbehaviour.order(worker!, 'hang');
      process.kill(service.pid, 'SIGKILL');
      await until(() => service.processes().length === 0, {
        what: 'the workers to end',
        deadlineMs: 1000,
      });
      await staying.end;
      const losses = lossesOf(await stress.stop());
      expect(losses).to.not.be.empty;
      await service.forgetFiles();
    });
  });
});
