import { expect } from 'chai';
import { encodeKeepalive, keepalive, messageType, program, status } from '../../lib/rpc/frame.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { readError } from '../peers/raw-client.js';
import { StandInHost, stalled } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const mebibyte = 1024 * 1024;

const hypervisorCall = 59;
const largeHypervisorCall = 11;
const upload = 208;
const download = 209;
const screenshot = 211;
const unknownProcedure = 9000;
const domainEvent = 318;

const streamFrame = (
  { procedure: number, serial }: { procedure: number; serial: number },
  state: number = status.continue,
  payload = encodeInt(7),
): Buffer =>
  frameOf({ procedure: number, type: messageType.stream, serial, status: state }, payload);

describe('frames that belong to nothing', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start();
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  const streamFramesAt = (frames: readonly ReceivedFrame[]): ReceivedFrame[] =>
    frames.filter(({ type }) => type === messageType.stream || type === messageType.streamHole);

  describe('of a client’s', () => {
    it('stream that there is not, or that is another client’s, reach no daemon', async () => {
      const theirs = await host.streaming(host.storage, upload);
      const { client, link, call } = await host.streaming(host.storage, download);
      const others = [
        { procedure: upload, serial: theirs.call.serial },
        { procedure: download, serial: call.serial + 1 },
        { procedure: screenshot, serial: call.serial },
        { procedure: hypervisorCall, serial: call.serial },
      ];
      for (const other of others) {
        client.send(
          streamFrame(other),
          streamFrame(other, status.continue, Buffer.alloc(mebibyte)),
        );
        client.send(frameOf({ ...other, type: messageType.streamHole }, Buffer.alloc(12)));
      }
      client.send(streamFrame(call));
      await link.take(({ type }) => type === messageType.stream, 'the frame of its own stream');
      expect(streamFramesAt(link.frames)).to.deep.equal([]);
      expect(streamFramesAt(theirs.link.frames)).to.deep.equal([]);
      expect(streamFramesAt(host.qemu.seen)).to.deep.equal([]);
    });

    it('stream reach no daemon once that has ended it', async () => {
      for (const end of [status.ok, status.error]) {
        const { client, link, call } = await host.streaming(host.storage, upload);
        link.send(streamFrame(call, end));
        await client.take(({ type }) => type === messageType.stream, 'the end');
        client.send(streamFrame(call), streamFrame(call, status.ok));
        const serial = client.begin(download);
        await link.takeCall(download);
        expect(streamFramesAt(link.frames), `after ${end}`).to.deep.equal([]);
        expect(serial).to.be.above(0);
      }
    });

    it('stream of a call that failed reach no daemon', async () => {
      const { client, link, call } = await host.calling(host.storage, upload);
      link.send(frameOf({ ...call, type: messageType.reply, status: status.error }));
      await client.replyTo(call.serial);
      client.send(streamFrame(call));
      client.begin(download);
      await link.takeCall(download);
      expect(streamFramesAt(link.frames)).to.deep.equal([]);
    });

    it('unknown procedure, which may be a newer libvirt’s, go to the hypervisor’s daemon', async () => {
      const client = await host.opened();
      const serial = client.begin(unknownProcedure);
      const link = await host.qemu.connection();
      link.reply(await link.takeCall(unknownProcedure));
      await client.replyTo(serial);
      client.send(streamFrame({ procedure: unknownProcedure, serial }));
      await link.take(({ type }) => type === messageType.stream, 'its frame');
      link.send(streamFrame({ procedure: unknownProcedure, serial }));
      await client.take(({ type }) => type === messageType.stream, 'the daemon’s');
    });

    it('calls with serial 0, and several of one serial, are each answered', async () => {
      const client = await host.opened();
      host.qemu.answer(hypervisorCall, ({ payload }) => payload);
      for (const serial of [0, 5, 5, 5]) {
        client.send(frameOf({ procedure: hypervisorCall, serial }, encodeInt(serial)));
      }
      for (const serial of [0, 5, 5, 5]) {
        expect((await client.replyTo(serial)).payload).to.deep.equal(encodeInt(serial));
      }
    });
  });

  describe('of a daemon’s', () => {
    it('streams, events and versions that there are not are dropped', async () => {
      const { client, link, call } = await host.streaming(host.storage, download);
      const hypervisorStream = { procedure: screenshot, serial: client.begin(screenshot) };
      const hypervisor = await host.qemu.connection();
      hypervisor.reply(await hypervisor.takeCall(screenshot));
      await client.replyTo(hypervisorStream.serial);
      link.send(
        streamFrame(hypervisorStream),
        streamFrame(hypervisorStream, status.error),
        streamFrame({ procedure: unknownProcedure, serial: call.serial }),
        streamFrame({ procedure: upload, serial: call.serial }),
        streamFrame({ procedure: download, serial: call.serial + 1 }),
        streamFrame(hypervisorStream, status.continue, Buffer.alloc(mebibyte)),
        frameOf({ procedure: download, type: messageType.stream, serial: call.serial, version: 2 }),
        frameOf({ procedure: hypervisorCall, type: messageType.message }),
        frameOf({ procedure: 1, program: 0x1234, type: messageType.message }),
      );
      link.send(streamFrame(call, status.ok));
      const frame = await client.take(({ type }) => type === messageType.stream, 'its own end');
      expect(frame).to.include({ procedure: download, serial: call.serial, status: status.ok });
      hypervisor.send(frameOf({ procedure: domainEvent, type: messageType.message, version: 2 }));
      hypervisor.send(streamFrame(hypervisorStream, status.ok));
      const end = await client.take(({ type }) => type === messageType.stream, 'the other end');
      expect(end).to.include({ procedure: screenshot, status: status.ok });
      await client.ping();
      expect(client.frames).to.deep.equal([]);
    });

    for (const [what, answer] of [
      ['AUTH_LIST', Buffer.from('ffffffff', 'hex')],
      ['AUTH_LIST cut short', Buffer.alloc(2)],
    ] as const) {
      it(`unreadable ${what} fails the call with an error that names daemon and socket`, async () => {
        host.storage.answer(procedure.authList, () => answer);
        const client = await host.opened();
        const { code, domain, message } = readError(await client.call(download));
        expect({ code, domain }).to.deep.equal({ code: 39, domain: 7 });
        expect(message).to.contain(`virtstoraged at '${host.storage.path}'`);
      });
    }

    it('unreadable refusal fails the call with an error that names daemon and socket', async () => {
      host.storage.answer(procedure.connectOpen, () => null);
      const client = await host.opened();
      const serial = client.begin(download);
      const link = await host.storage.connection();
      const call = await link.takeCall(procedure.connectOpen);
      const reply = { ...call, type: messageType.reply, status: status.error };
      link.send(frameOf(reply, Buffer.from('00000001ffffffff', 'hex')));
      const { message } = readError(await client.replyTo(serial));
      expect(message).to.contain(`virtstoraged at '${host.storage.path}'`);
      await link.end;
    });

    it('PINGs are read and no longer answered when it does not take the PONGs', async function () {
      this.timeout(30_000);
      await host.opened();
      const link = await host.qemu.connection();
      const before = host.workerMemory();
      link.pause();
      const ping = encodeKeepalive(keepalive.ping);
      const pings = Buffer.concat(Array.from({ length: 2000 }, () => ping));
      let sent = 0;
      for (; sent < 64 * mebibyte; sent += pings.length) await link.sendWithRegard(pings);
      expect(host.workerMemory() - before).to.be.below(32 * mebibyte);
      let pongs = 0;
      link.consume = (frame) => frame.program === program.keepalive && ++pongs > 0;
      link.resume();
      await until(() => pongs * ping.length > mebibyte, { what: 'PONGs' });
      const late = await stalled(() => pongs);
      expect(late * ping.length).to.be.below(8 * mebibyte);
      link.send(ping);
      await until(() => pongs === late + 1, { what: 'the PONG to a later PING' });
    });
  });
});

describe('a client that leaves while it is not read', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start();
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  const limit = 5;

  it('behind a large call that waits for its turn gives up its place at once', async () => {
    const client = await host.opened();
    for (let each = 0; each < limit; each++) client.begin(hypervisorCall);
    const link = await host.qemu.connection();
    await until(() => link.frames.length === limit, { what: 'the calls to arrive' });
    const large = frameOf({ procedure: largeHypervisorCall, serial: 99 }, Buffer.alloc(mebibyte));
    client.send(large.subarray(0, 300 * 1024));
    await stalled(() => client.socket.bytesWritten);
    client.destroy();
    await link.end;
    expect(link.frames).to.have.length(limit);
  });

  it('with more calls held than are kept gives up its place at once', async () => {
    const client = await host.opened();
    const link = await host.qemu.connection();
    const calls = Array.from({ length: 60 }, (_, serial) =>
      frameOf({ procedure: hypervisorCall, serial }, Buffer.alloc(60 * 1024)),
    );
    client.send(Buffer.concat(calls));
    await stalled(() => client.socket.bytesWritten);
    client.destroy();
    await link.end;
    expect(link.frames).to.have.length(limit);
  });

  it('while a daemon does not take its upload gives up its place at once', async () => {
    const { client, link, call } = await host.streaming(host.storage, upload);
    link.pause();
    const part = streamFrame(call, status.continue, Buffer.alloc(250 * 1024));
    client.send(Buffer.concat(Array.from({ length: 30 }, () => part)));
    await stalled(() => client.socket.bytesWritten);
    client.destroy();
    const hypervisor = host.qemu.connections[0]!;
    await hypervisor.end;
    link.resume();
    await link.end;
  });

  it('while its URI is still looked into opens no daemon', async () => {
    const opening = frameOf(
      { procedure: procedure.connectOpen, serial: 1 },
      encodeOpenArguments({ name: '', flags: 0 }),
    );
    for (let round = 0; round < 100; round++) {
      const client = await host.connected();
      client.send(opening);
      client.destroy();
    }
    await host.opened();
    const isAlone = (): boolean => host.qemu.connections.filter(({ ended }) => !ended).length === 1;
    await until(isAlone, { what: 'the connections of those who left to end' });
  });
});
