import { expect } from 'chai';
import { keepalive, messageType, program, status } from '../../lib/rpc/frame.js';
import { encodeInt, feature, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { readError } from '../peers/raw-client.js';
import { StandInHost } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const mebibyte = 1024 * 1024;

const hypervisorCall = 59;
const largeHypervisorCall = 11;
const upload = 208;
const download = 209;
const registerNetworkEvents = 313;
const openingSteps = [
  procedure.authList,
  procedure.connectOpen,
  procedure.connectSetIdentity,
] as const;

const isClosedEvent = ({ type, procedure: number }: ReceivedFrame): boolean =>
  type === messageType.message && number === procedure.connectEventConnectionClosed;

const isStreamEnd = ({ type, status: end }: ReceivedFrame): boolean =>
  type === messageType.stream && end === status.error;

describe('the relay when a daemon goes away', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start({ cluster: 'daemon_restart_timeout = 0\n' });
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  const lost = (daemon: string, path: string): object => ({
    code: 38,
    domain: 7,
    message: `Lost connection to ${daemon} at '${path}': End of file while reading data`,
  });

  it('ends its calls and its streams with an error that names daemon and socket', async () => {
    const { client, link, call: stream } = await host.streaming(host.storage, download);
    const serials = [1, 2, 3].map(() => client.begin(upload));
    await until(() => link.frames.length === 3, { what: 'the calls to arrive' });
    link.destroy();
    const error = lost('virtstoraged', host.storage.path);
    for (const serial of serials) {
      const reply = await client.replyTo(serial);
      expect(reply).to.include({ procedure: upload, program: program.remote, version: 1 });
      expect(readError(reply)).to.include(error);
    }
    const abort = await client.take(isStreamEnd, 'the end of the stream');
    expect(abort).to.include({ procedure: download, serial: stream.serial });
    expect(readError(abort)).to.include(error);
    await client.ping();
    expect(client.frames, 'neither a stream’s end for a failed call nor an event').to.deep.equal(
      [],
    );
    await host.logged(/lost connection to virtstoraged/);
  });

  it('does not end streams that have ended before', async () => {
    const { client, link, call } = await host.streaming(host.storage, download);
    const ended = await host.streaming(host.storage, upload);
    for (const { client: to, link: from, call: of } of [{ client, link, call }, ended]) {
      const header = { procedure: of.procedure, type: messageType.stream, serial: of.serial };
      from.send(frameOf(header));
      await to.take(({ type }) => type === messageType.stream, 'the stream’s end');
      from.destroy();
      await from.end;
      await to.ping();
      expect(to.frames).to.deep.equal([]);
    }
  });

  it('goes on with the other daemons, and opens a secondary one again at its next use', async () => {
    const { client, link } = await host.calling(host.storage, download);
    host.qemu.answer(hypervisorCall, () => encodeInt(1));
    link.destroy();
    await client.take(({ procedure: number }) => number === download, 'the call’s error');
    expect((await client.call(hypervisorCall)).status).to.equal(status.ok);
    const serial = client.begin(download);
    const again = await host.storage.connection(1);
    again.reply(await again.takeCall(download));
    expect((await client.replyTo(serial)).status).to.equal(status.ok);
    expect(host.qemu.connections).to.have.length(1);
  });

  it('frees the places that its calls had under max_client_requests', async () => {
    const { client, link } = await host.calling(host.storage, download);
    for (let each = 0; each < 20; each++) client.begin(download);
    host.qemu.answer(hypervisorCall, () => encodeInt(1));
    host.storage.answer(download, () => encodeInt(2));
    link.destroy();
    for (let each = 0; each < 21; each++) {
      await client.take(({ procedure: number }) => number === download, 'a reply or an error');
    }
    expect((await client.call(hypervisorCall)).status).to.equal(status.ok);
  });

  it('says so when a daemon answers a step of the opening and sends what is no frame with it', async () => {
    const client = await host.opened();
    for (const step of openingSteps) host.storage.answer(step, () => null);
    const serial = client.begin(download);
    const link = await host.storage.connection();
    const asked = await link.takeCall(procedure.authList);
    const answer = frameOf({ ...asked, type: messageType.reply }, encodeInt(0));
    link.send(answer, encodeInt(5));
    const { message } = readError(await client.replyTo(serial));
    expect(message).to.contain('virtstoraged').and.to.contain(host.storage.path);
    await client.ping();
  });

  it('tells a client that asked for it when the hypervisor’s daemon is gone', async () => {
    const told = await host.calling(host.storage, download);
    const untold = await host.opened();
    await told.client.call(procedure.connectRegisterCloseCallback);
    for (const link of host.qemu.connections) link.destroy();
    const event = await told.client.take(isClosedEvent, 'the event');
    expect(event).to.include({ program: program.remote, serial: 1, status: status.ok });
    for (const client of [told.client, untold]) {
      const error = readError(await client.call(hypervisorCall));
      expect(error.message).to.equal('internal error: client socket is closed');
    }
    expect(untold.frames).to.deep.equal([]);
    told.link.reply(told.call);
    await told.client.replyTo(told.call.serial);
    expect((await told.client.call(procedure.connectClose)).status).to.equal(status.ok);
    await told.client.end;
  });

  it('does not tell a client that has withdrawn its wish', async () => {
    host.qemu.answer(procedure.connectUnregisterCloseCallback, () => Buffer.alloc(0));
    const client = await host.opened();
    await client.call(procedure.connectRegisterCloseCallback);
    await client.call(procedure.connectUnregisterCloseCallback);
    (await host.qemu.connection()).destroy();
    await client.call(hypervisorCall);
    expect(client.frames).to.deep.equal([]);
  });

  it('tells of a secondary daemon’s end only those whom it sent events', async () => {
    host.network.answer(registerNetworkEvents, () => encodeInt(1));
    const listening = await host.calling(host.storage, download);
    await listening.client.call(procedure.connectRegisterCloseCallback);
    await listening.client.call(registerNetworkEvents);
    listening.link.destroy();
    await listening.client.take(({ procedure: number }) => number === download, 'the error');
    await listening.client.ping();
    expect(listening.client.frames).to.deep.equal([]);
    (await host.network.connection()).destroy();
    await listening.client.take(isClosedEvent, 'the event');
  });

  it('closes the client when a daemon dies in the middle of a large frame', async () => {
    const { client, link, call } = await host.calling(host.storage, download);
    const bystander = await host.opened();
    const frame = frameOf({ ...call, type: messageType.reply }, Buffer.alloc(mebibyte));
    const before = client.bytesReceived;
    link.send(frame.subarray(0, mebibyte / 2));
    await until(() => client.bytesReceived - before === mebibyte / 2, { what: 'the first half' });
    link.destroy();
    await client.end;
    await host.logged(/virtstoraged went away in the middle of a frame/);
    await bystander.ping();
  });

  it('swallows the rest of a client’s large call when its daemon dies under it', async () => {
    const client = await host.opened();
    const link = await host.qemu.connection();
    const frame = frameOf({ procedure: largeHypervisorCall, serial: 40 }, Buffer.alloc(mebibyte));
    client.send(frame.subarray(0, mebibyte / 2));
    await until(() => link.bytesReceived > mebibyte / 4, { what: 'the first half' });
    link.destroy();
    const { code, domain, message } = readError(await client.replyTo(40));
    expect({ code, domain }).to.deep.equal({ code: 38, domain: 7 });
    // How a socket ends in which bytes wait that nobody has read: whether they do is up to the
    // scheduler.
    const [what, reason] = message?.split("': ") ?? [];
    expect(what).to.equal(`Lost connection to virtqemud at '${host.qemu.path}`);
    expect(reason).to.be.oneOf([
      'End of file while reading data',
      'Connection reset by peer',
      'Broken pipe',
    ]);
    client.send(frame.subarray(mebibyte / 2));
    await client.ping();
    expect(client.frames).to.deep.equal([]);
  });

  it('drops a daemon that announces a frame no daemon may send', async () => {
    const { client, link, call } = await host.calling(host.storage, download);
    link.send(Buffer.from([0, 0, 0, 5]));
    const error = readError(await client.replyTo(call.serial));
    expect(error).to.include({ code: 38, domain: 7 });
    expect(error.message).to.contain(`virtstoraged at '${host.storage.path}'`);
    await link.end;
    await client.ping();
  });

  for (const step of openingSteps) {
    it(`says so when the hypervisor’s daemon dies at procedure ${step} of the opening`, async () => {
      const client = await host.connected();
      host.qemu.answer(step, () => {
        for (const link of host.qemu.connections) link.destroy();
        return null;
      });
      const reply = await client.openUri('qemu:///system');
      expect(readError(reply)).to.include(lost('virtqemud', host.qemu.path));
      await client.ping();
    });

    it(`says so when a secondary daemon dies at procedure ${step} of the opening`, async () => {
      const client = await host.opened();
      host.storage.answer(step, () => {
        for (const link of host.storage.connections) link.destroy();
        return null;
      });
      const serials = [1, 2, 3].map(() => client.begin(download));
      for (const serial of serials) {
        const error = readError(await client.replyTo(serial));
        expect(error).to.include(lost('virtstoraged', host.storage.path));
      }
      await client.ping();
    });
  }
});

describe('the relay’s patience', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start({
      conf: { keepalive_interval: 1, keepalive_count: 1 },
      cluster: 'open_timeout = 0.5\nlogin_timeout = 2\n',
    });
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  for (const step of openingSteps) {
    it(`ends for a daemon that does not answer procedure ${step} of the opening`, async () => {
      host.qemu.answer(step, () => null);
      const client = await host.connected();
      const before = performance.now();
      const error = readError(await client.openUri('qemu:///system'));
      expect(performance.now() - before).to.be.within(400, 1500);
      expect(error).to.include({ code: 38, domain: 7 });
      expect(error.message).to.contain(`virtqemud at '${host.qemu.path}'`);
      await (
        await host.qemu.connection()
      ).end;
    });
  }

  it('ends for a secondary daemon that does not answer, and the other daemons go on', async () => {
    host.storage.answer(procedure.authList, () => null);
    host.qemu.answer(hypervisorCall, () => encodeInt(1));
    const client = await host.opened();
    const serial = client.begin(download);
    expect((await client.call(hypervisorCall)).status).to.equal(status.ok);
    const error = readError(await client.replyTo(serial));
    expect(error.message).to.contain(`virtstoraged at '${host.storage.path}'`);
    await (
      await host.storage.connection()
    ).end;
  });

  it('never ends for a call that runs', async () => {
    const { client, link, call } = await host.calling(host.storage, download);
    await new Promise((resolve) => setTimeout(resolve, 700));
    link.reply(call);
    await client.replyTo(call.serial);
  });

  const isPing = (frame: ReceivedFrame): boolean =>
    frame.program === program.keepalive && frame.procedure === keepalive.ping;

  it('ends for a client that does not answer PING', async () => {
    const client = await host.opened();
    const link = await host.qemu.connection();
    const asked = { payload: encodeInt(feature.programKeepalive) };
    await client.call(procedure.connectSupportsFeature, asked.payload);
    const before = performance.now();
    await client.take(isPing, 'the PING');
    await client.end;
    expect(performance.now() - before).to.be.within(1500, 4500);
    await link.end;
  });

  it('does not end for one that answers, nor for one that has not asked to be watched', async () => {
    const watched = await host.opened();
    const unwatched = await host.opened();
    await watched.call(procedure.connectSupportsFeature, encodeInt(feature.programKeepalive));
    for (let round = 0; round < 2; round++) {
      await watched.take(isPing, 'the PING');
      const header = { program: program.keepalive, type: messageType.message };
      watched.send(frameOf({ ...header, procedure: keepalive.pong }));
    }
    expect(watched.ended).to.be.false;
    await unwatched.ping();
    expect(unwatched.frames).to.deep.equal([]);
  });

  it('ends for a client that connects and does not log in and open', async () => {
    const client = await host.connected();
    await client.call(procedure.authList);
    await client.end;
    await host.logged(/did not log in and open within 2 seconds/);
  });
});
