import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { procedure } from '../../lib/rpc/session-messages.js';
import { RawClient } from '../peers/raw-client.js';
import { until } from '../peers/waiting.js';
import { Service } from './service.js';

/** Seconds of --timeout, the least there is. */
const timeout = 1;

describe('the end after --timeout', function () {
  this.timeout(60_000);
  let services: Service[] = [];

  afterEach(async () => {
    await Promise.all(services.splice(0).map((service) => service.end({ alone: false })));
    services = [];
  });

  async function start(remote = false): Promise<Service> {
    const service = await Service.start({
      remote,
      args: ['--timeout', String(timeout)],
    });
    services.push(service);
    return service;
  }

  const passed = (start: number, seconds: number): Promise<boolean> =>
    until(() => performance.now() - start >= seconds * 1000, { what: `${seconds} seconds` });

  /** Resolves when the last client has gone and the clock runs. */
  async function leave(client: RawClient, service: Service): Promise<void> {
    const before = service.logged(/the client left|the client closed it/).length;
    client.destroy();
    await service.says(/the client left|the client closed it/, before + 1);
  }

  const isAnswered = async (client: RawClient): Promise<boolean> =>
    (await client.call(procedure.authList)).status === status.ok;

  it('never comes while somebody waits to be accepted, however late that is found out', async () => {
    const service = await start(true);
    for (const { connect } of service.entrances) {
      await leave(await service.proxy.open(), service);
      const start = performance.now();
      await passed(start, 0.8 * timeout);
      // From here on it cannot accept, and finds connection and timeout at the same moment.
      service.signal('SIGSTOP');
      const connecting = connect();
      await passed(start, 1.1 * timeout);
      service.signal('SIGCONT');
      const client = await connecting;
      expect(await isAnswered(client)).to.be.true;
      client.destroy();
    }
    await service.isGone();
    expect(await service.proxy.exited).to.equal(0);
  });

  it('either comes or serves a client at that very moment, never half', async () => {
    const tries = async (): Promise<void> => {
      let service = await start();
      for (let each = 0; each < 5; each++) {
        await leave(await service.proxy.open(), service);
        const leftAt = performance.now();
        const moment = leftAt + timeout * 1000 + Math.random() * 16 - 10;
        await passed(leftAt, timeout - 0.02);
        while (performance.now() < moment);
        const client = await RawClient.connect(service.proxy.socket).catch(() => null);
        if (client === null) {
          await service.isGone();
          expect(await service.proxy.exited).to.equal(0);
          service = await start();
        } else {
          expect(await isAnswered(client)).to.be.true;
          await leave(client, service);
        }
      }
    };
    await Promise.all([tries(), tries(), tries(), tries()]);
  });

  it('comes after a reload and after an upgrade as well', async () => {
    const service = await start();
    const client = await service.proxy.open();
    await service.reload();
    await service.upgrade();
    await leave(client, service);
    await service.isGone();
    expect(await service.proxy.exited).to.equal(0);
  });
});
