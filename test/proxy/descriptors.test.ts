import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { messageType, status } from '../../lib/rpc/frame.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { RpcError } from '../../lib/rpc/rpc-error.js';
import { encodeInt, feature, procedure } from '../../lib/rpc/session-messages.js';
import {
  descriptorCount,
  descriptorNumbers,
  filesOf,
  sendWithFiles,
  textsOf,
} from '../peers/descriptor-files.js';
import { ExactReader } from '../peers/exact-reader.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { freePorts } from '../peers/ports.js';
import { readError, type RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { StandInHost, stalled } from '../peers/stand-in-host.js';
import { run } from '../peers/clients.js';
import { until } from '../peers/waiting.js';

const hypervisorCall = 59;
const otherCall = 60_000;
const storageCall = 71;
const download = 209;
const openGraphics = 249;
const openGraphicsFd = 343;
const mebibyte = 1024 * 1024;

/** A frame that announces `count` descriptors. */
const announcing = (
  count: number,
  header: Parameters<typeof frameOf>[0],
  more: Buffer = Buffer.from('more'),
): Buffer =>
  frameOf({ type: messageType.callWithFds, ...header }, Buffer.concat([encodeInt(count), more]));

const replyOf = (call: ReceivedFrame, count: number, more?: Buffer): Buffer =>
  announcing(count, { ...call, type: messageType.replyWithFds, status: status.ok }, more);

const asksFor = async (client: RawClient): Promise<number> => {
  const reply = await client.call(procedure.connectSupportsFeature, encodeInt(feature.fdPassing));
  return new XdrReader(reply.payload).int('supported');
};

describe('file descriptors through the proxy', function () {
  this.timeout(30_000);
  let host: StandInHost;
  let tcpPort: number;
  let worker: number;
  let idle: number;

  before(async () => {
    [tcpPort = 0] = await freePorts(1);
    host = await StandInHost.start({
      conf: {
        listen_tcp: 1,
        listen_addr: '127.0.0.1',
        tcp_port: String(tcpPort),
        auth_tcp: 'none',
        max_client_requests: 2,
      },
    });
    [worker = 0] = host.proxy.workers();
    await host.logged(/client 1 .*left/);
    idle = await stalled(() => descriptorCount(worker));
  });
  beforeEach(() => host.startDaemons());
  afterEach(async () => {
    await host.stopDaemons();
    await until(() => descriptorCount(worker) <= idle, { what: 'the worker to close all it had' });
  });
  after(() => host.stop());

  /** A client that may send descriptors. */
  const asking = async (): Promise<RawClient> => {
    const client = await host.opened();
    expect(await asksFor(client)).to.equal(1);
    return client;
  };
  /** Reads what the daemon of the client that was opened last is sent. */
  const daemonReader = async (daemon = host.qemu): Promise<ExactReader> => {
    const connection = daemon.connections.at(-1) ?? (await daemon.connection());
    return new ExactReader(connection);
  };
  const send = (client: RawClient, serial: number, texts: string[], more?: Buffer): Promise<void> =>
    sendWithFiles(
      client,
      announcing(texts.length, { procedure: openGraphics, serial }, more),
      filesOf(...texts),
    );

  describe('with a call', () => {
    it('reach the daemon in order, together with the call', async () => {
      const client = await asking();
      const reader = await daemonReader();
      await send(client, 20, ['one', 'two', 'three']);
      client.begin(hypervisorCall);
      const frame = await reader.frame();
      expect(frame).to.include({ procedure: openGraphics, serial: 20, type: 4 });
      expect(frame.payload.toString('latin1')).to.equal('\0\0\0\x03more');
      expect(textsOf(frame.descriptors)).to.deep.equal(['one', 'two', 'three']);
      expect((await reader.frame()).procedure).to.equal(hypervisorCall);
      host.qemu.connections[0]!.reply(frame);
      await client.replyTo(20);
    });

    it('are as many as a frame may have, again and again', async () => {
      const client = await asking();
      const reader = await daemonReader();
      const texts = Array.from({ length: 32 }, (_, at) => `file ${at}`);
      for (const serial of [20, 21, 22]) {
        await send(client, serial, texts);
        const frame = await reader.frame();
        expect(textsOf(frame.descriptors)).to.deep.equal(texts);
        host.qemu.connections[0]!.reply(frame);
        await client.replyTo(serial);
      }
    });

    it('may come one byte of the frame at a time', async () => {
      const client = await asking();
      const reader = await daemonReader();
      const frame = announcing(2, { procedure: openGraphics, serial: 20 });
      for (const byte of frame.subarray(0, -1)) {
        await sendWithFiles(client, Buffer.of(byte), []);
      }
      await sendWithFiles(client, frame.subarray(-1), filesOf('one', 'two'));
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['one', 'two']);
    });

    it('wait with a call beyond max_client_requests', async () => {
      const client = await asking();
      const reader = await daemonReader();
      client.begin(hypervisorCall);
      client.begin(hypervisorCall);
      await send(client, 20, ['held']);
      await send(client, 21, ['held too', 'second']);
      await client.ping();
      const first = await reader.frame();
      const second = await reader.frame();
      const [link] = host.qemu.connections;
      link!.reply(first);
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['held']);
      link!.reply(second);
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['held too', 'second']);
    });

    it('wait with a call for a daemon that is being opened', async () => {
      host.storage.answer(procedure.connectSetIdentity, () => null);
      const client = await asking();
      const header = { procedure: storageCall, serial: 20 };
      await sendWithFiles(client, announcing(1, header), filesOf('waiting'));
      const link = await host.storage.connection();
      const identity = await link.takeCall(procedure.connectSetIdentity);
      await client.ping();
      const reader = new ExactReader(link);
      link.reply(identity);
      const call = await reader.frame();
      expect(call).to.include({ procedure: storageCall, serial: 20 });
      expect(textsOf(call.descriptors)).to.deep.equal(['waiting']);
    });

    it('go to the hypervisor’s daemon with a call whose own is not there', async () => {
      await host.storage.stop();
      const client = await asking();
      const reader = await daemonReader();
      const header = { procedure: storageCall, serial: 20 };
      await sendWithFiles(client, announcing(1, header), filesOf('elsewhere'));
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['elsewhere']);
    });

    it('are closed when a call’s daemon cannot be opened', async () => {
      host.storage.answer(procedure.connectOpen, () => new RpcError(1, 7, 'not today'));
      const client = await asking();
      const header = { procedure: storageCall, serial: 20 };
      await sendWithFiles(client, announcing(1, header), filesOf('closed'));
      expect(readError(await client.replyTo(20)).message).to.contain('not today');
      await until(() => descriptorCount(worker) <= idle + 2, { what: 'it to be closed' });
    });

    it('follow a call that is passed on in parts, which may have to wait', async () => {
      const client = await asking();
      const reader = await daemonReader();
      client.begin(hypervisorCall);
      client.begin(hypervisorCall);
      const more = Buffer.alloc(mebibyte, 'x');
      const sent = send(client, 20, ['large', 'second'], more).then(() =>
        send(client, 21, ['next']),
      );
      const first = await reader.frame();
      const second = await reader.frame();
      const [link] = host.qemu.connections;
      link!.reply(first);
      const large = await reader.frame();
      expect(large.payload.subarray(4).equals(more)).to.be.true;
      expect(textsOf(large.descriptors)).to.deep.equal(['large', 'second']);
      link!.reply(second);
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['next']);
      await sent;
    });

    it('may be none', async () => {
      for (const open of [() => host.opened(), asking]) {
        const client = await open();
        client.send(announcing(0, { procedure: openGraphics, serial: 20 }));
        const link = host.qemu.connections.at(-1)!;
        const call = await link.take((frame) => frame.serial === 20, 'the call');
        link.reply(call);
        expect((await client.replyTo(20)).status).to.equal(status.ok);
      }
    });

    it('are bounded: a client with too many in waiting is not read', async () => {
      const client = await asking();
      client.begin(hypervisorCall);
      client.begin(hypervisorCall);
      const reader = await daemonReader();
      const texts = Array.from({ length: 32 }, () => 'file');
      const sent = (async () => {
        for (let serial = 20; serial < 40; serial++) await send(client, serial, texts);
      })();
      const calls = [await reader.frame(), await reader.frame()];
      await until(() => descriptorCount(worker) >= idle + 128, { what: 'some to wait' });
      for (let serial = 20; serial < 40; serial++) {
        expect(descriptorCount(worker)).to.be.below(idle + 200);
        host.qemu.connections[0]!.reply(calls.shift()!);
        const call = await reader.frame();
        expect(textsOf(call.descriptors)).to.deep.equal(texts);
        calls.push(call);
      }
      await sent;
    });
  });

  describe('with a reply', () => {
    it('reach a client that never asked, in order', async () => {
      const { client, link, call } = await host.calling(host.qemu, openGraphicsFd);
      const reader = new ExactReader(client);
      await sendWithFiles(link, replyOf(call, 2), filesOf('one', 'two'));
      link.send(frameOf({ procedure: 318, type: messageType.message }));
      const reply = await reader.frame();
      expect(reply).to.include({ type: 5, serial: call.serial });
      expect(textsOf(reply.descriptors)).to.deep.equal(['one', 'two']);
      expect((await reader.frame()).procedure).to.equal(318);
    });

    it('come with procedures of a newer libvirt too', async () => {
      const { client, link, call } = await host.calling(host.qemu, otherCall);
      const reader = new ExactReader(client);
      await sendWithFiles(link, replyOf(call, 1), filesOf('new'));
      expect(textsOf((await reader.frame()).descriptors)).to.deep.equal(['new']);
    });

    it('may be none, or an error instead', async () => {
      const { client, link, call } = await host.calling(host.qemu, openGraphicsFd);
      link.send(replyOf(call, 0));
      expect(await client.take((frame) => frame.type === 5, 'the reply')).to.include({
        serial: call.serial,
      });
      const serial = client.begin(openGraphicsFd);
      const second = await link.takeCall(openGraphicsFd);
      link.send(frameOf({ ...second, type: messageType.reply, status: status.error }));
      expect((await client.replyTo(serial)).status).to.equal(status.error);
    });

    it('wait behind another daemon’s large frame', async () => {
      const storing = await host.calling(host.storage, download);
      const { client } = storing;
      const serial = client.begin(openGraphicsFd);
      const qemu = await host.qemu.connection();
      const call = await qemu.takeCall(openGraphicsFd);
      const reader = new ExactReader(client);
      const large = frameOf({ ...storing.call, type: messageType.reply }, Buffer.alloc(mebibyte));
      storing.link.send(large.subarray(0, mebibyte / 2));
      const first = reader.frame();
      await until(() => reader.bytesRead > mebibyte / 4, { what: 'the beginning' });
      await sendWithFiles(qemu, replyOf(call, 1), filesOf('behind'));
      storing.link.send(large.subarray(mebibyte / 2));
      expect((await first).payload).to.have.length(mebibyte);
      const reply = await reader.frame();
      expect(reply.serial).to.equal(serial);
      expect(textsOf(reply.descriptors)).to.deep.equal(['behind']);
    });

    it('follow a reply that is passed on in parts', async () => {
      const { client, link, call } = await host.calling(host.qemu, openGraphicsFd);
      const reader = new ExactReader(client);
      const more = Buffer.alloc(mebibyte, 'x');
      const sent = sendWithFiles(link, replyOf(call, 2, more), filesOf('large', 'second'));
      const reply = await reader.frame();
      expect(reply.payload.subarray(4).equals(more)).to.be.true;
      expect(textsOf(reply.descriptors)).to.deep.equal(['large', 'second']);
      await sent;
    });

    it('reach a client that has a stream running, and much of it in its socket', async () => {
      const { client, link, call } = await host.streaming(host.storage, download);
      client.begin(openGraphicsFd);
      const qemu = await host.qemu.connection();
      const graphics = await qemu.takeCall(openGraphicsFd);
      const reader = new ExactReader(client);
      const part = frameOf(
        { ...call, type: messageType.stream, status: status.continue },
        Buffer.alloc(65_536),
      );
      const parts = 40;
      const flow = (async () => {
        for (let each = 0; each < parts; each++) await link.sendWithRegard(part);
      })();
      await sendWithFiles(qemu, replyOf(graphics, 2), filesOf('one', 'two'));
      let texts: string[] = [];
      let seen = 0;
      for (let each = 0; each < parts + 1; each++) {
        const frame = await reader.frame();
        if (frame.type === messageType.stream) seen++;
        else texts = textsOf(frame.descriptors);
      }
      await flow;
      expect(seen).to.equal(parts);
      expect(texts).to.deep.equal(['one', 'two']);
    });
  });

  it('pass through a worker that is being drained', async () => {
    const own = await StandInHost.start();
    try {
      await own.startDaemons();
      const client = await own.opened();
      expect(await asksFor(client)).to.equal(1);
      const reader = new ExactReader(await own.qemu.connection());
      process.kill(own.proxy.pid, 'SIGHUP');
      await own.logged(/reloaded: generation 2 serves/);
      await send(client, 20, ['drained']);
      const call = await reader.frame();
      expect(textsOf(call.descriptors)).to.deep.equal(['drained']);
      client.begin(openGraphicsFd);
      const fetching = await reader.frame();
      process.kill(own.proxy.pid, 'SIGTERM');
      await until(() => !existsSync(own.proxy.socket), { what: 'the proxy to stop' });
      const back = new ExactReader(client);
      const link = await own.qemu.connection();
      await sendWithFiles(link, replyOf(fetching, 1), filesOf('last'));
      link.reply(call);
      expect(textsOf((await back.frame()).descriptors)).to.deep.equal(['last']);
    } finally {
      await own.stopDaemons();
      await own.stop();
    }
  });

  describe('over TCP', () => {
    it('are not passed, and clients that ask are told so', async () => {
      const client = await connectTcp(tcpPort);
      try {
        await client.openUri('qemu:///system');
        expect(await asksFor(client)).to.equal(0);
        expect(readError(await client.call(openGraphicsFd))).to.include({
          code: 84,
          domain: 7,
          message: 'Operation not supported: fd passing is not supported by this connection',
        });
        const serial = client.begin(otherCall);
        const link = await host.qemu.connection();
        await sendWithFiles(link, replyOf(await link.takeCall(otherCall), 1), filesOf('newer'));
        expect(readError(await client.replyTo(serial))).to.include({ code: 84 });
        client.send(announcing(1, { procedure: openGraphics, serial: 9 }));
        await client.end;
      } finally {
        client.destroy();
      }
    });
  });

  it('for which a worker has no room close the connection they came on, and nothing else', async () => {
    const client = await asking();
    const bystander = await asking();
    const limit = async (files: number): Promise<void> => {
      await run('prlimit', ['--pid', String(worker), `--nofile=${files}:`]);
    };
    const query = ['--nofile', '--noheadings', '--raw', '--output', 'SOFT'];
    const { stdout } = await run('prlimit', ['--pid', String(worker), ...query]);
    const numbers = new Set(descriptorNumbers(worker));
    let free = 0;
    while (numbers.has(free)) free++;
    await limit(free);
    try {
      await send(client, 20, ['no room']).catch(() => undefined);
      await client.end;
    } finally {
      await limit(Number(stdout));
    }
    await host.logged(/warning.*sent descriptors for which there is no room; raise the limit/);
    bystander.begin(hypervisorCall);
    await host.qemu.connections[1]!.takeCall(hypervisorCall);
  });
});
