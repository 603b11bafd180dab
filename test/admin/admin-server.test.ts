import { expect } from 'chai';
import { adminProcedure as number } from '../../lib/admin/messages.js';
import { keepalive, messageType, program, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain } from '../../lib/rpc/rpc-error.js';
import { frameOf } from '../peers/frame-socket.js';
import { until } from '../peers/waiting.js';
import { unsigned, type AdminClient } from './admin-client.js';
import { AdminHost, usualSettings } from './fake-backend.js';

describe('admin server', () => {
  let host: AdminHost;

  afterEach(() => host.stop());

  const isServed = async (client: AdminClient): Promise<boolean> =>
    (await client.servers()).length === 2;

  describe('its clients', () => {
    beforeEach(async () => {
      host = await AdminHost.start({ maxClients: 2, maxQueuedClients: 2 });
    });

    it('of another user are refused, whatever they ask', async () => {
      host.peer = { ...host.peer, uid: host.peer.uid + 1 };
      const client = await host.connect();
      const error = await client.refused(number.connectDaemonShutdown, (writer) =>
        writer.unsigned(0),
      );
      expect(error).to.include({ code: errorCode.operationDenied, domain: errorDomain.rpc });
      await client.end;
      expect(host.backend.said).to.deep.equal([]);
      expect(host.admin.size).to.equal(0);
      const [record] = host.records;
      expect(record?.level).to.equal('warning');
      expect(record?.message).to.contain('4711').and.to.contain(String(host.peer.uid));
    });

    it('of another user who ask nothing lose their connection, and the many at once', async () => {
      host.peer = { ...host.peer, uid: host.peer.uid + 1 };
      const before = performance.now();
      const clients: AdminClient[] = [];
      for (let each = 0; each < 25; each++) clients.push(await host.connect());
      await until(() => clients.filter(({ ended }) => ended).length === 5, { what: 'five to end' });
      expect(performance.now() - before).to.be.below(900);
      await Promise.all(clients.map(({ end }) => end));
      expect(performance.now() - before).to.be.within(900, 3000);
      const late = await host.connect();
      expect((await late.refused(number.connectGetLibVersion)).code).to.equal(
        errorCode.operationDenied,
      );
    });

    it('of another user who send too little to be a call are told nothing', async () => {
      host.peer = { ...host.peer, uid: host.peer.uid + 1 };
      const client = await host.connect();
      client.send(Buffer.alloc(1));
      await client.end;
      expect(client.bytesReceived).to.equal(0);
    });

    it('see themselves, with ids that are never used twice', async () => {
      const first = await host.connect();
      const [one] = await first.clients('admin');
      expect(one).to.include({ server: 'admin', id: 1, transport: 0 });
      expect(one!.timestamp).to.be.closeTo(Date.now() / 1000, 5);
      expect(await first.clientInfo('admin', 1)).to.include({
        readonly: false,
        unix_process_id: 4711,
      });
      first.destroy();
      const second = await host.connect();
      await until(async () => (await second.clients('admin')).length === 1, {
        what: 'the first to be gone',
      });
      expect((await second.clients('admin'))[0]?.id).to.equal(2);
    });

    it('beyond the limit wait for a place, and too many waiting ones are turned away', async () => {
      const [first, second] = [await host.connect(), await host.connect()];
      expect(await isServed(first)).to.be.true;
      expect(await isServed(second)).to.be.true;
      const [third, fourth] = [await host.connect(), await host.connect()];
      await until(() => host.admin.size === 4, { what: 'both to be accepted' });
      const waiting = third.servers();
      expect(await first.limits('admin')).to.deep.equal({
        nclients_max: 2,
        nclients: 2,
        nclients_unauth_max: 0,
        nclients_unauth: 0,
      });
      expect(third.bytesReceived).to.equal(0);
      const fifth = await host.connect();
      // The one that has waited longest goes.
      await third.end;
      await waiting.catch(() => undefined);
      expect(host.records.some(({ message }) => message.includes('admin_max_clients'))).to.be.true;
      first.destroy();
      expect(await isServed(fourth)).to.be.true;
      second.destroy();
      expect(await isServed(fifth)).to.be.true;
    });

    it('are let in when the limit is raised', async () => {
      const clients = [await host.connect(), await host.connect(), await host.connect()];
      await until(() => host.admin.size === 3, { what: 'all to be accepted' });
      await clients[0]!.set(number.serverSetClientLimits, 'admin', unsigned('nclients_max', 3));
      expect(await isServed(clients[2]!)).to.be.true;
      expect((await clients[0]!.clients('admin')).map(({ id }) => id)).to.deep.equal([1, 2, 3]);
      host.admin.configure({ ...usualSettings, maxClients: 2 });
      expect(await clients[0]!.limits('admin')).to.include({ nclients_max: 2, nclients: 3 });
    });

    it('can disconnect each other', async () => {
      const [first, second] = [await host.connect(), await host.connect()];
      await until(() => host.admin.size === 2, { what: 'both to be accepted' });
      await first.disconnect('admin', 2);
      await second.end;
      expect((await first.clients('admin')).map(({ id }) => id)).to.deep.equal([1]);
    });

    it('say goodbye and are answered before the end', async () => {
      const client = await host.connect();
      expect((await client.admin(number.connectClose)).status).to.equal(status.ok);
      await client.end;
      expect(host.admin.size).to.equal(0);
      expect(host.changes).to.equal(2);
    });

    it('all lose their connection when the daemon ends', async () => {
      const clients = [await host.connect(), await host.connect(), await host.connect()];
      await until(() => host.admin.size === 3, { what: 'all to be accepted' });
      host.admin.close('the end');
      await Promise.all(clients.map(({ end }) => end));
      expect(host.admin.size).to.equal(0);
    });

    it('find it has one process, busy with their question, and no TLS', async () => {
      const client = await host.connect();
      expect(await client.threadpool('admin')).to.deep.equal({
        minWorkers: 1,
        maxWorkers: 1,
        nWorkers: 1,
        freeWorkers: 0,
        prioWorkers: 0,
        jobQueueDepth: 0,
      });
      const error = await client.refused(number.serverUpdateTlsFiles, (writer) =>
        writer.string('admin').unsigned(0),
      );
      expect(error.code).to.equal(errorCode.internal);
      expect(error.message).to.contain('TLS');
    });
  });

  describe('its sessions', () => {
    let client: AdminClient;

    beforeEach(async () => {
      host = await AdminHost.start({ maxCalls: 2, keepalive: { interval: 1, count: 1 } });
      client = await host.connect();
    });

    it('take a frame byte by byte', async () => {
      const frame = frameOf({
        program: program.admin,
        procedure: number.connectGetLibVersion,
        serial: 9,
      });
      for (const byte of frame) client.send(Buffer.from([byte]));
      expect((await client.replyTo(9)).status).to.equal(status.ok);
    });

    it('serve as many calls at a time as allowed, the others in their order', async () => {
      let open: () => void = () => undefined;
      host.backend.gate = new Promise((resolve) => (open = resolve));
      const slow = [client.threadpool('virtproxyd'), client.threadpool('virtproxyd')];
      const quick = client.servers();
      const other = await host.connect();
      await until(async () => (await other.threadpool('admin')).jobQueueDepth === 1, {
        what: 'the third call to wait',
      });
      expect(client.bytesReceived).to.equal(0);
      open();
      await Promise.all(slow);
      expect(await quick).to.have.length(2);
    });

    it('answer hundreds of calls that come at once', async () => {
      const replies = Array.from({ length: 500 }, () => client.servers());
      expect((await Promise.all(replies)).every(({ length }) => length === 2)).to.be.true;
    });

    for (const [what, bytes] of [
      ['a frame that is too short', Buffer.from('0000001b06900690', 'hex')],
      ['a frame of 33 MiB', Buffer.from('0200000406900690', 'hex')],
      ['a frame that no call needs', Buffer.from('0010000006900690', 'hex')],
      [
        'a stream frame',
        frameOf({ program: program.admin, procedure: 3, type: messageType.stream }),
      ],
      [
        'a call with descriptors',
        frameOf({ program: program.admin, procedure: 3, type: messageType.callWithFds }),
      ],
    ] as const) {
      it(`end with ${what}, and with that one alone`, async () => {
        const other = await host.connect();
        client.send(bytes);
        await client.end;
        expect(client.frames).to.deep.equal([]);
        expect(await isServed(other)).to.be.true;
      });
    }

    it('read no more of a client that takes no replies, and others are served', async () => {
      client.pause();
      const ask = frameOf(
        { program: program.admin, procedure: number.serverListClients, serial: 1 },
        Buffer.from('0000000a76697274' + '70726f7879640000' + '0000000100000000', 'hex'),
      );
      const flood = Buffer.concat(Array<Buffer>(1000).fill(ask));
      for (let round = 0; round < 100; round++) client.send(flood);
      const other = await host.connect();
      for (let round = 0; round < 20; round++) expect(await isServed(other)).to.be.true;
      expect(client.socket.writableLength).to.be.above(1_000_000);
      client.resume();
      await until(() => client.frames.length === 100_000, { what: 'all replies' });
    });

    it('answer PING, and ask only those that know how to answer', async () => {
      const stranger = await host.connect();
      expect(await isServed(stranger)).to.be.true;
      await client.ping();
      const asked = await client.take(({ procedure }) => procedure === keepalive.ping, 'the PING');
      expect(asked).to.include({
        program: program.keepalive,
        type: messageType.message,
        serial: 0,
      });
      await client.end;
      expect(host.records.at(-1)?.message).to.contain('keepalive');
      // As long without a word, but never asked: virt-admin does not answer.
      expect(stranger.ended).to.be.false;
      expect(await isServed(stranger)).to.be.true;
      expect(stranger.frames).to.deep.equal([]);
    });

    it('go on while PINGs are answered', async () => {
      let pings = 0;
      client.consume = ({ procedure, type }) => {
        if (procedure !== keepalive.ping || type !== messageType.message) return false;
        pings++;
        client.send(
          frameOf({
            program: program.keepalive,
            procedure: keepalive.pong,
            type: messageType.message,
          }),
        );
        return true;
      };
      await client.ping();
      await until(() => pings === 3, { what: 'three PINGs' });
      expect(await isServed(client)).to.be.true;
    });
  });
});
