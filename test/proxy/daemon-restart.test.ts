import { expect } from 'chai';
import { messageType, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { encodeInt, encodeString, procedure } from '../../lib/rpc/session-messages.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { frameOf, type FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { readError, type RawClient } from '../peers/raw-client.js';
import type { StandInDaemon } from '../peers/stand-in-daemon.js';
import { StandInHost } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const call = {
  hostname: 59,
  createDomain: 9,
  numOfNetworks: 52,
  listPools: 71,
  download: 209,
  registerDomainEvents: 105,
  registerAny: 316,
  deregisterAny: 317,
  lifecycleEvent: 318,
};

const answer = encodeString('after.example');

const eventOf = (id: number, number: number): Buffer =>
  frameOf(
    { procedure: call.lifecycleEvent, type: messageType.message },
    new XdrWriter().int(id).int(number).finish(),
  );

/** A registration's arguments: the kind of event, and for whatever guest. */
const kind = (number: number): Buffer => Buffer.concat([encodeInt(number), encodeInt(0)]);

/** Has a daemon give callbacks these ids in turn. */
function giveIds(daemon: StandInDaemon, ...ids: number[]): void {
  daemon.answer(call.registerAny, () => encodeInt(ids.shift() ?? 99));
}

const isEvent = ({ procedure }: ReceivedFrame): boolean => procedure === call.lifecycleEvent;

/** The id and the number of the next event that a client is sent. */
async function nextEvent(client: RawClient): Promise<[id: number, number: number]> {
  const { payload } = await client.take(isEvent, 'an event');
  return [payload.readInt32BE(0), payload.readInt32BE(4)];
}

describe('the restart of a daemon', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start();
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  const procedures = (daemon: StandInDaemon): number[] =>
    daemon.seen.map((frame) => frame.procedure);

  it('is a slow reply to whoever has asked for something', async () => {
    const { client, call: before } = await host.calling(host.qemu, call.hostname);
    await host.end('qemu');
    const daemon = await host.begin('qemu');
    const after = await (await daemon.connection()).takeCall(call.hostname);
    expect(after).to.deep.equal(before);
    (await daemon.connection()).reply(after, answer);
    expect((await client.replyTo(before.serial)).payload).to.deep.equal(answer);
    expect(procedures(daemon)).to.deep.equal([
      procedure.authList,
      procedure.connectOpen,
      procedure.connectSetIdentity,
      call.hostname,
    ]);
  });

  it('is not noticed by whoever asks for something while the daemon is away', async () => {
    const { client, link, call: first } = await host.calling(host.storage, call.listPools);
    link.reply(first);
    await client.replyTo(first.serial);
    await host.end('storage');
    const serial = client.begin(call.listPools);
    await client.ping();
    const daemon = await host.begin('storage');
    const again = await (await daemon.connection()).takeCall(call.listPools);
    (await daemon.connection()).reply(again, answer);
    expect((await client.replyTo(serial)).payload).to.deep.equal(answer);
  });

  it('never has a call made twice that may change something', async () => {
    const { client, call: creation } = await host.calling(host.qemu, call.createDomain);
    const asking = client.begin(call.hostname);
    await until(() => host.qemu.seen.some((frame) => frame.serial === asking), {
      what: 'the other call',
    });
    await host.end('qemu');
    const error = readError(await client.replyTo(creation.serial));
    expect(error.message).to.contain(`Lost connection to virtqemud at '${host.qemu.path}': `);
    expect(error.message).to.match(/; it is not known whether the call took effect$/);
    const daemon = await host.begin('qemu');
    const link = await daemon.connection();
    link.reply(await link.takeCall(call.hostname), answer);
    await client.replyTo(asking);
    expect(procedures(daemon)).to.not.include(call.createDomain);
  });

  it('ends streams with an error that names the daemon', async () => {
    const { client, call: download } = await host.streaming(host.storage, call.download);
    await host.end('storage');
    const end = await client.take(({ type }) => type === messageType.stream, "the stream's end");
    expect(end.serial).to.equal(download.serial);
    expect(readError(end).message).to.contain(`virtstoraged at '${host.storage.path}'`);
  });

  describe('for a client with events', () => {
    let client: RawClient;

    /** Registers and resolves with the id that the client is given. */
    async function register(eventKind: number): Promise<number> {
      const reply = await client.call(call.registerAny, kind(eventKind));
      expect(reply.status).to.equal(status.ok);
      return reply.payload.readInt32BE(0);
    }

    /** Ends the daemon and starts another, which gives callbacks these ids. */
    async function restart(...ids: number[]): Promise<FrameSocket> {
      await host.end('qemu');
      const daemon = await host.begin('qemu');
      giveIds(daemon, ...ids);
      const link = await daemon.connection();
      await until(() => procedures(daemon).includes(call.registerAny), { what: 'a registration' });
      return link;
    }

    beforeEach(async () => {
      giveIds(host.qemu, 5, 6, 7);
      client = await host.opened();
    });

    it('goes on under the ids that the client knows', async () => {
      expect([await register(0), await register(4)]).to.deep.equal([5, 6]);
      const link = await restart(0, 5);
      link.send(eventOf(5, 1), eventOf(0, 2));
      expect([await nextEvent(client), await nextEvent(client)]).to.deep.equal([
        [6, 1],
        [5, 2],
      ]);
      expect(client.frames.filter(isEvent)).to.deep.equal([]);
    });

    it('tells no event twice and loses none that comes between two registrations', async () => {
      await register(0);
      await register(4);
      await host.end('qemu');
      const daemon = await host.begin('qemu');
      daemon.answer(call.registerAny, () => null);
      const link = await daemon.connection();
      link.reply(await link.takeCall(call.registerAny), encodeInt(1));
      link.send(eventOf(1, 1));
      link.reply(await link.takeCall(call.registerAny), encodeInt(2));
      link.send(eventOf(2, 2));
      expect([await nextEvent(client), await nextEvent(client)]).to.deep.equal([
        [5, 1],
        [6, 2],
      ]);
    });

    it('lets the client deregister, and register anew under ids of its own', async () => {
      expect([await register(0), await register(4)]).to.deep.equal([5, 6]);
      const link = await restart(0, 1, 5);
      const ended = client.begin(call.deregisterAny, encodeInt(6));
      const deregistration = await link.takeCall(call.deregisterAny);
      expect(deregistration.payload).to.deep.equal(encodeInt(1));
      link.reply(deregistration);
      await client.replyTo(ended);
      // The daemon's 5 is another callback than the client's.
      const id = await register(9);
      expect(id).to.equal(6);
      link.send(eventOf(5, 1), eventOf(0, 2));
      expect([await nextEvent(client), await nextEvent(client)]).to.deep.equal([
        [6, 1],
        [5, 2],
      ]);
    });

    it('asks no more for what the client has deregistered', async () => {
      await register(0);
      const id = await register(4);
      host.qemu.answer(call.deregisterAny, () => Buffer.alloc(0));
      await client.call(call.deregisterAny, encodeInt(id));
      await restart(0);
      const [again, ...more] = host.qemu.seen.filter(
        (frame) => frame.procedure === call.registerAny,
      );
      expect(again?.payload).to.deep.equal(kind(0));
      expect(more).to.deep.equal([]);
    });

    it('lets a registration lapse that the daemon does not take again', async () => {
      await register(0);
      await register(4);
      await host.end('qemu');
      const daemon = await host.begin('qemu');
      const gone = new RpcError(42, 10, 'Domain not found');
      daemon.answer(call.registerAny, ({ payload }) =>
        payload.readInt32BE(0) === 0 ? gone : encodeInt(5),
      );
      daemon.answer(call.hostname, () => answer);
      const link = await daemon.connection();
      expect((await client.call(call.hostname)).payload).to.deep.equal(answer);
      link.send(eventOf(5, 1));
      expect(await nextEvent(client)).to.deep.equal([6, 1]);
      // The daemon's 5 is not the client's, whose registration is gone.
      client.begin(call.deregisterAny, encodeInt(5));
      expect((await link.takeCall(call.deregisterAny)).payload.readInt32BE(0)).to.equal(-1);
    });

    it('tells one that asked to be told of the end, and serves it again', async () => {
      await client.call(procedure.connectRegisterCloseCallback);
      await register(0);
      const link = await restart(0);
      await client.take(
        (frame) => frame.procedure === procedure.connectEventConnectionClosed,
        'the event of the end',
      );
      link.send(eventOf(0, 1));
      expect(await nextEvent(client)).to.deep.equal([5, 1]);
      expect(procedures(host.qemu)).to.include(procedure.connectRegisterCloseCallback);
    });
  });

  it('is told in one line for all clients', async () => {
    const clients = [];
    for (let each = 0; each < 5; each++) {
      clients.push(await host.calling(host.network, call.numOfNetworks));
    }
    expect(clients).to.have.length(5);
    await host.end('network');
    await host.begin('network');
    await host.logged(
      /virtnetworkd at '.*' went away \(End of file while reading data\): 5 clients, \d calls repeated, \d failed, back after \d\.\d{3} s/,
    );
    expect(host.proxy.log().match(/virtnetworkd at '.*' went away/g)).to.have.length(1);
  });
});

describe('a daemon that does not come back as it was', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start({
      cluster: 'daemon_restart_timeout = 1\nmax_daemon_reopenings = 2\nopen_timeout = 5\n',
    });
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  it('leaves calls the errors they get without it, and is tried again by the next one', async () => {
    const { client, call: asking } = await host.calling(host.qemu, call.hostname);
    const creation = client.begin(call.createDomain);
    await until(() => host.qemu.seen.some(({ serial }) => serial === creation), {
      what: 'the other call',
    });
    await host.end('qemu');
    expect((await client.replyTo(creation)).status).to.equal(status.error);
    const waiting = client.begin(call.hostname);
    const lost = readError(await client.replyTo(asking.serial));
    expect(lost.message).to.contain(`Lost connection to virtqemud at '${host.qemu.path}'`);
    const waited = readError(await client.replyTo(waiting));
    expect(waited.message).to.equal('internal error: client socket is closed');
    const begun = performance.now();
    expect((await client.call(call.hostname)).status).to.equal(status.error);
    expect(performance.now() - begun).to.be.below(900);
    await host.logged(
      /virtqemud at '.*' went away .*: 1 clients, 0 calls repeated, 3 failed, not back within \d\.\d+ s/,
    );
    const daemon = await host.begin('qemu');
    daemon.answer(call.hostname, () => answer);
    expect((await client.call(call.hostname)).payload).to.deep.equal(answer);
  });

  it('and refuses to be opened gives its own reason to the calls that waited', async () => {
    const { client } = await host.calling(host.storage, call.listPools);
    await host.end('storage');
    const serial = client.begin(call.listPools);
    const daemon = await host.begin('storage');
    const refusal = new RpcError(errorCode.internal, errorDomain.remote, 'not today');
    daemon.answer(procedure.connectOpen, () => refusal);
    expect(readError(await client.replyTo(serial)).message).to.equal('internal error: not today');
  });

  it('and refuses the identity is given no call', async () => {
    const { client, call: asking } = await host.calling(host.storage, call.listPools);
    await host.end('storage');
    const daemon = await host.begin('storage');
    const refusal = new RpcError(errorCode.accessDenied, errorDomain.remote, 'who?');
    daemon.answer(procedure.connectSetIdentity, () => refusal);
    expect(readError(await client.replyTo(asking.serial)).message).to.contain('who?');
    expect(daemon.seen.map((frame) => frame.procedure)).to.not.include(call.listPools);
  });

  it('but dies again while it is opened is tried again', async () => {
    const { client, call: asking } = await host.calling(host.qemu, call.hostname);
    await host.end('qemu');
    const first = await host.begin('qemu');
    first.answer(procedure.connectOpen, () => null);
    await (await first.connection()).takeCall(procedure.connectOpen);
    await host.end('qemu');
    const second = await host.begin('qemu');
    second.answer(call.hostname, () => answer);
    expect((await client.replyTo(asking.serial)).payload).to.deep.equal(answer);
  });

  it('but dies of a call each time it has it is not sent that without end', async () => {
    const { client, call: deadly } = await host.calling(host.qemu, call.hostname);
    let deaths = 0;
    for (let attempt = 0; attempt < 4; attempt++) {
      await host.end('qemu');
      deaths++;
      const daemon = await host.begin('qemu');
      if (attempt === 3) break;
      await (await daemon.connection()).takeCall(call.hostname);
    }
    expect(deaths).to.equal(4);
    const error = readError(await client.replyTo(deadly.serial));
    expect(error.message).to.contain('Lost connection to virtqemud');
  });

  it('but breaks the rules of the wire is not opened again by itself', async () => {
    const { client, link, call: asking } = await host.calling(host.qemu, call.hostname);
    link.send(Buffer.from('00000003', 'hex'));
    const error = readError(await client.replyTo(asking.serial));
    expect(error.message).to.contain('Lost connection to virtqemud');
    expect(host.qemu.connections).to.have.length(1);
  });

  it('is not opened for more clients at a time than max_daemon_reopenings', async () => {
    for (let each = 0; each < 6; each++) await host.calling(host.qemu, call.hostname);
    await host.end('qemu');
    const daemon = await host.begin('qemu');
    daemon.answer(procedure.connectOpen, () => null);
    await until(() => daemon.connections.length === 2, { what: 'two connections' });
    const opening = await Promise.all(
      daemon.connections.map((link) => link.takeCall(procedure.connectOpen)),
    );
    expect(daemon.connections).to.have.length(2);
    daemon.answer(procedure.connectOpen, () => Buffer.alloc(0));
    for (const [index, frame] of opening.entries()) daemon.connections[index]!.reply(frame);
    await until(() => daemon.connections.length === 6, { what: 'all connections' });
  });
});
