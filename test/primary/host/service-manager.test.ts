import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { receive } from '../../../lib/native/descriptor-passing.js';
import { libcFunction } from '../../../lib/native/library.js';
import { ServiceManager } from '../../../lib/primary/host/service-manager.js';
import { boundDatagramSocket } from '../../native/sockets.js';
import { until } from '../../peers/waiting.js';

const clockMonotonic = 1;
const clockGettime = libcFunction<(clock: number, time: Buffer) => number>(
  'int clock_gettime(int clock, void *time)',
);

function monotonicMicroseconds(): bigint {
  const time = Buffer.alloc(16);
  clockGettime(clockMonotonic, time);
  return time.readBigInt64LE(0) * 1_000_000n + time.readBigInt64LE(8) / 1000n;
}

describe('primary/service-manager', () => {
  let directory: string;
  let path: string;
  const receivers: number[] = [];
  const managers: ServiceManager[] = [];
  let complaints: string[];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'notify-'));
    path = join(directory, 'notify');
    complaints = [];
  });
  afterEach(() => {
    for (const manager of managers.splice(0)) manager.stop();
    for (const fd of receivers.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  const listen = (address = path): number => {
    const fd = boundDatagramSocket(address);
    receivers.push(fd);
    return fd;
  };
  const next = (fd: number): string | null => {
    const buffer = Buffer.alloc(4096);
    const received = receive(fd, buffer, 0, buffer.length);
    return received === 'would-block' ? null : buffer.toString('utf8', 0, received.bytes);
  };
  const all = (fd: number): string[] => {
    const found: string[] = [];
    for (let message = next(fd); message !== null; message = next(fd)) found.push(message);
    return found;
  };
  const manager = (env: Record<string, string | undefined>): ServiceManager => {
    const made = new ServiceManager(env, (line) => complaints.push(line));
    managers.push(made);
    return made;
  };

  it('says what the daemon does, to a path and to an abstract name', () => {
    for (const address of [path, `@virtproxyd-notify-${process.pid}`]) {
      const receiver = listen(address);
      const service = manager({ NOTIFY_SOCKET: address });
      service.ready();
      service.status('2 workers, 5 clients');
      service.mainPid(4711);
      service.reloaded('configuration of 12:00 is in force');
      service.stopping();
      expect(all(receiver)).to.deep.equal([
        'READY=1',
        'STATUS=2 workers, 5 clients',
        'MAINPID=4711',
        'READY=1\nSTATUS=configuration of 12:00 is in force',
        'STOPPING=1',
      ]);
    }
    expect(complaints).to.be.empty;
  });

  it('dates a reload by CLOCK_MONOTONIC', () => {
    const receiver = listen();
    const before = monotonicMicroseconds();
    manager({ NOTIFY_SOCKET: path }).reloading();
    const match = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(next(receiver) ?? '');
    const said = BigInt(match?.[1] ?? 0);
    expect(said >= before && said <= monotonicMicroseconds()).to.be.true;
  });

  it('keeps a status from being another message', () => {
    const receiver = listen();
    const service = manager({ NOTIFY_SOCKET: path });
    service.status('client\nSTOPPING=1\r\n');
    service.reloaded('conf:3: bad\u0000value');
    expect(all(receiver)).to.deep.equal([
      'STATUS=client STOPPING=1',
      'READY=1\nSTATUS=conf:3: bad value',
    ]);
  });

  it('takes its variables out of the environment and hands them only to a successor', () => {
    listen();
    const env = {
      NOTIFY_SOCKET: path,
      WATCHDOG_USEC: '3000000',
      WATCHDOG_PID: String(process.pid),
      PATH: '/bin',
    };
    const service = manager(env);
    expect(env).to.deep.equal({ PATH: '/bin' });
    // Without WATCHDOG_PID, which the successor does not have yet.
    expect(service.environment).to.deep.equal({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '3000000' });
    expect(manager({}).environment).to.deep.equal({});
  });

  it('does nothing when nobody asked to be notified', () => {
    const service = manager({ WATCHDOG_USEC: '1000' });
    service.ready();
    service.reloading();
    service.startWatchdog(() => {
      throw new Error('nobody watches');
    });
    service.stop();
    expect(complaints).to.be.empty;
  });

  it('never throws, whatever the socket is', () => {
    for (const target of [
      join(directory, 'missing'),
      `/${'x'.repeat(200)}`,
      'relative',
      '@',
      '',
      'vsock:2:1234',
    ]) {
      complaints = [];
      const service = manager({ NOTIFY_SOCKET: target });
      service.ready();
      expect(complaints, target).to.have.lengthOf(1);
      expect(complaints[0]).to.include('cannot notify the service manager').and.to.include(target);
    }
  });

  it('says nothing after stop, which may be called twice', () => {
    const receiver = listen();
    const service = manager({ NOTIFY_SOCKET: path });
    service.stop();
    service.stop();
    service.ready();
    expect(all(receiver)).to.be.empty;
    expect(complaints).to.be.empty;
  });

  it('keeps messages, in order, for a service manager that is busy', async () => {
    const receiver = listen();
    const service = manager({ NOTIFY_SOCKET: path });
    // More than the receiver's queue holds.
    const queued = 300;
    for (let index = 0; index < queued; index++) service.status(`filler ${index}`);
    service.ready();
    service.status('serving');
    const messages: string[] = [];
    await until(
      () => {
        messages.push(...all(receiver));
        return messages.includes('STATUS=serving');
      },
      { what: 'the messages that had to wait' },
    );
    expect(messages.slice(-2)).to.deep.equal(['READY=1', 'STATUS=serving']);
    // Only a bounded number of them is kept.
    expect(messages.length).to.be.below(queued);
    expect(complaints).to.be.empty;
  });

  describe('the watchdog', () => {
    it('hears twice a period from a daemon that lives, and nothing from one that does not', async () => {
      const receiver = listen();
      const service = manager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '40000' });
      let asked = 0;
      let alive = true;
      const start = performance.now();
      service.startWatchdog(() => {
        asked++;
        return alive;
      });
      service.startWatchdog(() => true);
      expect(all(receiver)).to.deep.equal(['WATCHDOG=1']);
      await until(() => asked >= 6, { what: 'five more pings' });
      const periods = (performance.now() - start) / 40;
      const pings = all(receiver);
      expect(pings).to.have.lengthOf(asked - 1);
      expect(new Set(pings)).to.deep.equal(new Set(['WATCHDOG=1']));
      expect(asked - 1).to.be.at.most(periods * 2 + 1);

      alive = false;
      const then = asked;
      await until(() => asked >= then + 3, { what: 'three more questions' });
      expect(all(receiver)).to.be.empty;
    });

    it('is not for a process that WATCHDOG_PID does not name, nor without a period', () => {
      const receiver = listen();
      for (const env of [
        { WATCHDOG_USEC: '40000', WATCHDOG_PID: '1' },
        { WATCHDOG_USEC: '0' },
        { WATCHDOG_USEC: 'soon' },
        {},
      ]) {
        manager({ NOTIFY_SOCKET: path, ...env }).startWatchdog(() => true);
      }
      expect(all(receiver)).to.be.empty;
    });
  });
});
