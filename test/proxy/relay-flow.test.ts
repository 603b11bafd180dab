import { createHash, randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { headerLength, messageType, program, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { encodeInt, encodeString, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf, type FrameSocket } from '../peers/frame-socket.js';
import { readError, type RawClient } from '../peers/raw-client.js';
import { StandInHost, stalled } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const mebibyte = 1024 * 1024;

/** How much is sent to a peer that does not read; a proxy that kept it all would be found out. */
const flood = 64 * mebibyte;

/**
 * Bytes that may be on their way between two peers: kernel buffers of two sockets, and what the
 * proxy may keep.
 */
const mostUnderWay = 8 * mebibyte;

/** Bytes by which a worker may grow over it, garbage not collected yet included. */
const mostGrowth = 32 * mebibyte;

/** Data of one stream frame as libvirt sends it. */
const streamData = 262_120;

const hypervisorCall = 59;
const largeHypervisorCall = 11;
const upload = 208;
const download = 209;
const domainEvent = 318;

const eventFrame = (payload?: Buffer): Buffer =>
  frameOf({ procedure: domainEvent, type: messageType.message }, payload);

/** Sends frames one after the other until `flood` bytes have gone or the connection ends. */
class Flow {
  sent = 0;
  readonly done: Promise<void>;

  constructor(from: FrameSocket, next: () => Buffer) {
    this.done = (async () => {
      while (this.sent < flood) {
        const frame = next();
        await from.sendWithRegard(frame);
        this.sent += frame.length;
      }
    })();
    this.done.catch(() => undefined);
  }
}

describe('the flow of bytes through the relay', function () {
  this.timeout(30_000);
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start();
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  /** A client with nothing to do with the one that is held up, and its worker's memory. */
  async function bystander(): Promise<{ client: RawClient; memory: number }> {
    host.qemu.answer(hypervisorCall, () => encodeString('host'));
    return { client: await host.opened(), memory: host.workerMemory() };
  }

  /**
   * That the flow stops early, that the worker has not grown with it, and that others are served at
   * once.
   */
  async function expectHeldUp(
    flow: Flow,
    { client, memory }: { client: RawClient; memory: number },
  ): Promise<void> {
    expect(await stalled(() => flow.sent)).to.be.below(mostUnderWay);
    expect(host.workerMemory() - memory).to.be.below(mostGrowth);
    const before = performance.now();
    await client.call(hypervisorCall);
    expect(performance.now() - before).to.be.below(500);
  }

  /**
   * Sends a whole flood of stream data to a peer that reads only once the sender has been held up.
   */
  async function expectBackPressure(
    from: FrameSocket,
    to: FrameSocket,
    header: { procedure: number; serial: number },
  ): Promise<void> {
    const others = await bystander();
    const sent = createHash('sha256');
    const received = createHash('sha256');
    to.pause();
    const flow = new Flow(from, () => {
      const data = randomBytes(streamData);
      sent.update(data);
      return frameOf({ ...header, type: messageType.stream, status: status.continue }, data);
    });
    await expectHeldUp(flow, others);
    const before = to.bytesReceived;
    to.consume = ({ payload }) => {
      received.update(payload);
      return true;
    };
    to.resume();
    await flow.done;
    await until(() => to.bytesReceived - before >= flow.sent, { what: 'all bytes to arrive' });
    expect(received.digest('hex')).to.equal(sent.digest('hex'));
  }

  describe('has back-pressure:', () => {
    it('a client that does not read holds up its daemon', async () => {
      const { client, link, call } = await host.streaming(host.storage, download);
      await expectBackPressure(link, client, { procedure: download, serial: call.serial });
    });

    it('a daemon that does not read holds up its client', async () => {
      const { client, link, call } = await host.streaming(host.storage, upload);
      await expectBackPressure(client, link, { procedure: upload, serial: call.serial });
    });

    it('calls that wait for their turn hold up their client', async () => {
      const client = await host.opened();
      const others = await bystander();
      host.qemu.answer(largeHypervisorCall, () => null);
      let serial = 1000;
      const flow = new Flow(client, () =>
        frameOf({ procedure: largeHypervisorCall, serial: serial++ }, Buffer.alloc(60 * 1024)),
      );
      const link = await host.qemu.connection();
      await expectHeldUp(flow, others);
      host.qemu.answer(largeHypervisorCall, () => Buffer.alloc(0));
      for (const call of link.frames.splice(0)) link.reply(call);
      client.consume = (frame) => frame.serial !== serial - 1;
      await flow.done;
      await client.replyTo(serial - 1);
    });

    it('a client that asks the proxy itself and does not read is held up', async () => {
      const client = await host.opened();
      const others = await bystander();
      client.pause();
      const ping = frameOf({ program: program.keepalive, procedure: 1, type: messageType.message });
      const pings = Buffer.concat(Array.from({ length: 1000 }, () => ping));
      const flow = new Flow(client, () => pings);
      await expectHeldUp(flow, others);
      const before = client.bytesReceived;
      client.consume = () => true;
      client.resume();
      await flow.done;
      await until(() => client.bytesReceived - before >= flow.sent, { what: 'all PONGs' });
    });

    it('a large frame that stalls holds up the other daemons’ frames', async () => {
      const { client, link, call } = await host.streaming(host.storage, download);
      const others = await bystander();
      const header = { procedure: download, type: messageType.stream, serial: call.serial };
      const large = frameOf({ ...header, status: status.continue }, randomBytes(mebibyte));
      const received = client.bytesReceived;
      link.send(large.subarray(0, mebibyte / 2));
      await until(() => client.bytesReceived - received === mebibyte / 2, {
        what: 'the first half',
      });
      const event = eventFrame(Buffer.alloc(60 * 1024));
      const flow = new Flow(await host.qemu.connection(), () => event);
      await expectHeldUp(flow, others);
      let events = 0;
      client.consume = (frame) => frame.procedure === domainEvent && ++events > 0;
      link.send(large.subarray(mebibyte / 2));
      const whole = await client.take(({ type }) => type === messageType.stream, 'the large frame');
      expect(whole.payload.equals(large.subarray(headerLength))).to.be.true;
      await flow.done;
      await until(() => events * event.length === flow.sent, { what: 'all events to arrive' });
    });

    it('a large frame that stalls does not keep another daemon from being opened', async () => {
      const { client, link, call } = await host.calling(host.qemu, largeHypervisorCall);
      const large = frameOf({ ...call, type: messageType.reply }, randomBytes(mebibyte));
      const received = client.bytesReceived;
      link.send(large.subarray(0, mebibyte / 2));
      await until(() => client.bytesReceived - received === mebibyte / 2, {
        what: 'the first half',
      });
      const serial = client.begin(download);
      const storage = await host.storage.connection();
      storage.reply(await storage.takeCall(download));
      link.send(large.subarray(mebibyte / 2));
      expect((await client.replyTo(call.serial)).payload.length).to.equal(mebibyte);
      await client.replyTo(serial);
    });

    it('a client that does not read does not keep a daemon from being opened', async () => {
      const client = await host.opened();
      client.pause();
      const event = eventFrame(Buffer.alloc(60 * 1024));
      const flow = new Flow(await host.qemu.connection(), () => event);
      await stalled(() => flow.sent);
      const serial = client.begin(download);
      const storage = await host.storage.connection();
      storage.reply(await storage.takeCall(download));
      client.consume = (frame) => frame.procedure === domainEvent;
      client.resume();
      await client.replyTo(serial);
      await flow.done;
    });

    it('small frames behind a stalled large one all come once it is through', async () => {
      const { client, link, call } = await host.streaming(host.storage, download);
      const header = { procedure: download, type: messageType.stream, serial: call.serial };
      const large = frameOf({ ...header, status: status.continue }, randomBytes(mebibyte));
      const received = client.bytesReceived;
      link.send(large.subarray(0, mebibyte / 2));
      await until(() => client.bytesReceived - received === mebibyte / 2, {
        what: 'the first half',
      });
      const hypervisor = await host.qemu.connection();
      const count = 50_000;
      hypervisor.send(Buffer.concat(Array.from({ length: count }, () => eventFrame())));
      let events = 0;
      client.consume = (frame) => frame.procedure === domainEvent && ++events > 0;
      expect(events).to.equal(0);
      link.send(large.subarray(mebibyte / 2));
      await until(() => events === count, { what: 'all events to arrive' });
    });
  });

  describe('large frames', () => {
    const part = 300 * 1024;

    it('a large call reaches the daemon before it is complete', async () => {
      const client = await host.opened();
      const link = await host.qemu.connection();
      const before = link.bytesReceived;
      const frame = frameOf({ procedure: largeHypervisorCall, serial: 50 }, randomBytes(mebibyte));
      client.send(frame.subarray(0, part));
      await until(() => link.bytesReceived - before === part, { what: 'the first part' });
      client.send(frame.subarray(part));
      const call = await link.takeCall(largeHypervisorCall);
      expect(call.payload.equals(frame.subarray(headerLength))).to.be.true;
      link.reply(call);
      await client.replyTo(50);
    });

    it('a large call is not torn apart by one that waited for a daemon that is not there', async () => {
      await host.storage.stop();
      const client = await host.opened();
      const payload = randomBytes(mebibyte);
      const large = frameOf({ procedure: largeHypervisorCall, serial: 100 }, payload);
      client.send(frameOf({ procedure: download, serial: 99 }), large.subarray(0, part));
      const link = await host.qemu.connection();
      // By the time that another, later client's call comes this way, the first one's has found no
      // daemon either.
      await host.calling(host.qemu, download);
      client.send(large.subarray(part));
      expect((await link.takeCall(largeHypervisorCall)).payload.equals(payload)).to.be.true;
      expect((await link.takeCall(download)).serial).to.equal(99);
    });

    it('a large call whose daemon cannot be opened is answered, and tries it once', async () => {
      const refusal = new RpcError(errorCode.accessDenied, errorDomain.rpc, 'not for you');
      host.storage.answer(procedure.connectOpen, () => refusal);
      const client = await host.opened();
      const reply = await client.call(download, Buffer.alloc(mebibyte));
      expect(readError(reply).message).to.contain('not for you');
      expect(host.storage.connections).to.have.length(1);
      await client.ping();
    });

    it('a download goes on while the daemon takes no more of an upload', async () => {
      const { client, link, call } = await host.streaming(host.storage, upload);
      const serial = client.begin(download);
      const other = await link.takeCall(download);
      link.reply(other);
      await client.replyTo(serial);
      link.pause();
      const header = { type: messageType.stream, status: status.continue };
      const sends = { ...header, procedure: upload, serial: call.serial };
      const flow = new Flow(client, () => frameOf(sends, Buffer.alloc(streamData)));
      await stalled(() => flow.sent);
      // libvirt's daemons answer a client with what has room in their queue, and read on only then.
      const downloaded = frameOf({ ...other, ...header }, randomBytes(streamData));
      for (let count = 0; count < 100; count++) {
        await link.sendWithRegard(downloaded);
        await client.take(({ procedure }) => procedure === download, `download ${count}`);
      }
      link.resume();
      await flow.done;
    });

    it('a large reply reaches the client before it is complete', async () => {
      const { client, link, call } = await host.calling(host.qemu, hypervisorCall);
      const before = client.bytesReceived;
      const frame = frameOf({ ...call, type: messageType.reply }, randomBytes(mebibyte));
      link.send(frame.subarray(0, part));
      await until(() => client.bytesReceived - before === part, { what: 'the first part' });
      link.send(frame.subarray(part));
      const reply = await client.replyTo(call.serial);
      expect(reply.payload.equals(frame.subarray(headerLength))).to.be.true;
    });

    it('the largest frame there may be goes through, both ways', async () => {
      const largest = Buffer.alloc(33_554_408, 'ab');
      const client = await host.opened();
      client.begin(largeHypervisorCall, largest);
      const link = await host.qemu.connection();
      const call = await link.takeCall(largeHypervisorCall, 15_000);
      expect(call.payload.equals(largest)).to.be.true;
      link.reply(call, largest);
      expect((await client.replyTo(call.serial, 15_000)).payload.equals(largest)).to.be.true;
    });

    it('large frames of two daemons and the proxy’s own never interleave', async () => {
      const { client, link, call } = await host.calling(host.storage, download);
      client.begin(hypervisorCall);
      const hypervisor = await host.qemu.connection();
      const other = await hypervisor.takeCall(hypervisorCall);
      const first = frameOf({ ...call, type: messageType.reply }, randomBytes(2 * mebibyte));
      const second = frameOf({ ...other, type: messageType.reply }, randomBytes(2 * mebibyte));
      const before = client.bytesReceived;
      link.send(first.subarray(0, part));
      await until(() => client.bytesReceived - before === part, { what: 'the first part' });
      hypervisor.send(eventFrame(), second.subarray(0, part));
      const pong = client.ping();
      for (let at = part; at < first.length; at += part) {
        await link.sendWithRegard(first.subarray(at, at + part));
      }
      const firstReply = await client.replyTo(call.serial);
      expect(firstReply.payload.equals(first.subarray(headerLength))).to.be.true;
      await pong;
      const trailer = [second.subarray(part), eventFrame()];
      hypervisor.send(...trailer);
      const secondReply = await client.replyTo(other.serial);
      expect(secondReply.payload.equals(second.subarray(headerLength))).to.be.true;
      const isEvent = ({ procedure }: { procedure: number }): boolean => procedure === domainEvent;
      await client.take(isEvent, 'the event before it');
      await client.take(isEvent, 'the event behind it');
    });

    it('are answered or dropped like small ones when they are wrong', async () => {
      const client = await host.opened();
      const large = Buffer.alloc(mebibyte);
      client.send(
        frameOf({ procedure: hypervisorCall, type: messageType.reply, serial: 1 }, large),
        frameOf({ procedure: upload, type: messageType.stream, serial: 99, status: 2 }, large),
        frameOf({ procedure: hypervisorCall, program: 0x1234, serial: 2 }, large),
        frameOf({ procedure: hypervisorCall, status: 1, serial: 3 }, large),
        frameOf({ procedure: 1, serial: 4 }, large),
      );
      for (const serial of [2, 3, 4]) {
        expect((await client.replyTo(serial)).status).to.equal(status.error);
      }
      await client.ping();
      expect(client.frames).to.deep.equal([]);
      expect((await host.qemu.connection()).frames.length).to.be.at.most(1);
    });

    it('with descriptors from a daemon that may not send them harm none but its own calls', async () => {
      const { client, link, call } = await host.calling(host.storage, download);
      const large = { ...call, type: messageType.replyWithFds };
      link.send(frameOf(large, Buffer.concat([encodeInt(1), Buffer.alloc(mebibyte)])));
      const error = readError(await client.replyTo(call.serial));
      expect(error.message).to.contain(host.storage.path);
      host.qemu.answer(hypervisorCall, () => encodeString('host'));
      expect((await client.call(hypervisorCall)).status).to.equal(status.ok);
      await client.ping();
    });

    it('with descriptors are refused like small ones', async () => {
      const client = await host.opened();
      const payload = Buffer.alloc(mebibyte);
      payload.writeUInt32BE(1);
      client.send(frameOf({ procedure: hypervisorCall, type: messageType.callWithFds }, payload));
      await client.end;
      expect((await host.qemu.connection()).frames).to.deep.equal([]);
    });
  });
});
