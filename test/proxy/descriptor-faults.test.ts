import { openSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { sendWithDescriptors } from '../../lib/native/descriptor-passing.js';
import { closeDescriptors } from '../../lib/native/descriptors.js';
import { messageType, status } from '../../lib/rpc/frame.js';
import { encodeInt, feature, procedure } from '../../lib/rpc/session-messages.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import { descriptorCount } from '../peers/descriptor-files.js';
import { ExactReader } from '../peers/exact-reader.js';
import { frameOf, type FrameSocket, type SentHeader } from '../peers/frame-socket.js';
import { readError, type RawClient } from '../peers/raw-client.js';
import { StandInHost, stalled } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const hypervisorCall = 59;
const openConsole = 201;
const openGraphics = 249;
const openGraphicsFd = 343;

/**
 * Bytes, or how many descriptors go with one byte 0; a part is sent when the part before is with
 * the kernel.
 */
type Part = Buffer | number;

async function sendParts({ socket }: FrameSocket, parts: readonly Part[]): Promise<void> {
  for (const part of parts) {
    const isSent = { what: 'the bytes to be sent' };
    if (typeof part === 'number') {
      const descriptors = Array.from({ length: part }, () => openSync('/dev/null', 'r'));
      const { fd } = handleOf(socket);
      try {
        await until(() => sendWithDescriptors(fd, Buffer.alloc(1), descriptors) === 1, isSent);
      } finally {
        closeDescriptors(descriptors);
      }
    } else {
      socket.write(part);
      await until(() => socket.writableLength === 0, isSent);
    }
  }
}

function announcing(count: number, header: SentHeader, extra = 100): Buffer {
  const payload = Buffer.concat([encodeInt(count), Buffer.alloc(extra)]);
  return frameOf({ type: messageType.callWithFds, ...header }, payload);
}

describe('file descriptors that do not come as they should', function () {
  this.timeout(30_000);
  let host: StandInHost;
  let worker: number;
  let idle: number;

  before(async () => {
    host = await StandInHost.start({
      conf: { max_client_requests: 1 },
      cluster: 'daemon_restart_timeout = 0\n',
    });
    [worker = 0] = host.proxy.workers();
    await host.logged(/client 1 .*left/);
    idle = await stalled(() => descriptorCount(worker));
  });
  beforeEach(() => host.startDaemons());
  afterEach(async () => {
    await host.stopDaemons();
    await until(() => descriptorCount(worker) <= idle, { what: 'the worker to close all it had' });
    expect(host.proxy.workers()).to.deep.equal([worker]);
  });
  after(() => host.stop());

  const asking = async (): Promise<RawClient> => {
    const client = await host.opened();
    await client.call(procedure.connectSupportsFeature, encodeInt(feature.fdPassing));
    return client;
  };

  /** Checks that others are served: one client's fault is nobody else's. */
  const others = async (): Promise<void> => {
    const other = await host.opened();
    const serial = other.begin(hypervisorCall);
    const link = host.qemu.connections.at(-1)!;
    link.reply(await link.takeCall(hypervisorCall));
    await other.replyTo(serial);
    other.destroy();
  };

  const call = { procedure: openGraphics, serial: 20 };
  const plain = frameOf({ procedure: hypervisorCall, serial: 21 });

  const fromClients: readonly (readonly [string, readonly Part[], RegExp])[] = [
    ['a count of 33', [announcing(33, call), 1], /announced 33 descriptors, allowed are up to 32/],
    ['a count that is no number of anything', [announcing(-1, call)], /announced 4294967295/],
    ['no room for a count', [frameOf({ ...call, type: messageType.callWithFds })], /too short/],
    ['a byte without a descriptor', [announcing(1, call), Buffer.alloc(1)], /sent 0 descriptors/],
    ['the next frame in place of them', [announcing(2, call), 1, plain], /sent 0 descriptors/],
    ['two with one byte', [announcing(2, call), 2], /sent 2 descriptors with a byte/],
    ['one too many', [announcing(1, call), 1, 1], /belongs to none/],
    ['one behind a call that announces none', [announcing(0, call), 1], /belongs to none/],
    ['one behind an ordinary call', [plain, 1], /belongs to none/],
    [
      'some behind a reply, which a client does not send',
      [announcing(1, { ...call, type: messageType.replyWithFds }), 1],
      /belongs to none/,
    ],
    ['the same serial number twice', [announcing(1, call), 1, announcing(1, call), 1], /the same/],
  ];
  it('from a client, a large call right behind the question whether it may send any: its connection is closed', async () => {
    const client = await host.opened();
    const question = { procedure: procedure.connectSupportsFeature, serial: 2 };
    client.send(frameOf(question, encodeInt(feature.fdPassing)), announcing(1000, call, 300_000));
    await client.end;
    expect(host.qemu.seen.filter(({ procedure: number }) => number === openGraphics)).to.deep.equal(
      [],
    );
  });

  for (const [what, parts, reason] of fromClients) {
    it(`from a client, ${what}: its connection is closed, and the log says why`, async () => {
      const client = await asking();
      // It fills the one place, so that descriptors have to wait.
      client.begin(hypervisorCall);
      await (await host.qemu.connection()).takeCall(hypervisorCall);
      await sendParts(client, parts).catch(() => undefined);
      await client.end;
      await host.logged(new RegExp(`client \\d+ \\(unix, [^\\n]*${reason.source}`));
      await others();
    });
  }

  it('from a client, too few behind a large call: its connection and the daemon’s are closed', async () => {
    const client = await asking();
    const link = await host.qemu.connection();
    const parts = [announcing(2, call, 300_000), 1, Buffer.alloc(1)];
    await sendParts(client, parts).catch(() => undefined);
    await client.end;
    await link.end;
    expect(link.frames).to.deep.equal([]);
  });

  it('from a client that did not ask: its connection is closed, and the log says why', async () => {
    for (const extra of [0, 300_000]) {
      const client = await host.opened();
      await sendParts(client, [announcing(1, call, extra), 1]).catch(() => undefined);
      await client.end;
    }
    await host.logged(/warning.*client \d+ .*without having been told that they can be passed/);
  });

  it('from a client that does not wait for the answer to its question', async () => {
    const client = await host.opened();
    const question = frameOf(
      { procedure: procedure.connectSupportsFeature, serial: 5 },
      encodeInt(feature.fdPassing),
    );
    await sendParts(client, [Buffer.concat([question, announcing(1, call)]), 1]).catch(
      () => undefined,
    );
    await client.end;
  });

  it('with calls that are refused: they are closed, and the connection goes on', async () => {
    const client = await asking();
    await sendParts(client, [
      announcing(2, { ...call, program: 0x1234 }),
      1,
      1,
      announcing(1, { ...call, status: 1, serial: 22 }),
      1,
      announcing(1, { procedure: procedure.connectOpen, serial: 23 }),
      1,
      announcing(1, { ...call, program: 0x1234, serial: 24 }, 300_000),
      1,
    ]);
    for (const serial of [20, 22, 23, 24]) {
      expect((await client.replyTo(serial)).status).to.equal(status.error);
    }
    await client.ping();
    expect(descriptorCount(worker)).to.be.at.most(idle + 2);
  });

  const losses = (): number => host.proxy.log().split('lost connection to').length;

  const steps: readonly (readonly [string, readonly Part[]])[] = [
    ['in the middle of a call', [announcing(2, call).subarray(0, 50)]],
    ['before the first descriptor', [announcing(2, call)]],
    ['between two descriptors', [announcing(2, call), 1]],
    ['behind a call', [announcing(2, call), 1, 1]],
    ['in the middle of a large call', [announcing(2, call, 300_000).subarray(0, 200_000)]],
    ['between the descriptors of a large call', [announcing(2, call, 300_000), 1]],
    [
      'with calls in waiting',
      [plain, announcing(1, call), 1, announcing(1, { ...call, serial: 30 }), 1],
    ],
  ];
  for (const [what, parts] of steps) {
    it(`a client that leaves ${what} leaves nothing behind`, async () => {
      const client = await asking();
      await sendParts(client, parts);
      client.destroy();
      await (
        await host.qemu.connection()
      ).end;
    });

    it(`a daemon that leaves when a client is ${what} leaves nothing behind`, async () => {
      const client = await asking();
      await sendParts(client, parts);
      const before = losses();
      (await host.qemu.connection()).destroy();
      await until(() => losses() > before, { what: 'the proxy to notice' });
      client.destroy();
    });
  }

  it('for a daemon that does not read: they are closed with its connection', async () => {
    const client = await asking();
    host.qemu.answer(openConsole, () => Buffer.alloc(0));
    const { serial } = await client.call(openConsole);
    const link = await host.qemu.connection();
    new ExactReader(link);
    const header = { type: messageType.stream, status: status.continue, procedure: openConsole };
    client.send(frameOf({ ...header, serial }, Buffer.alloc(900_000)));
    await sendParts(client, [announcing(3, call), 1, 1, 1]);
    await client.ping();
    await until(() => descriptorCount(worker) === idle + 2 + 3, { what: 'them to wait' });
    link.destroy();
    expect(readError(await client.replyTo(20)).message).to.contain('Lost connection');
    await until(() => descriptorCount(worker) === idle + 1, { what: 'them to be closed' });
  });

  it('for a client that does not read: they are closed with its connection', async () => {
    const { client, link, call: fetching } = await host.calling(host.qemu, openGraphicsFd);
    new ExactReader(client);
    const event = { procedure: 318, type: messageType.message };
    // More than the socket takes, and less than that the daemon is no longer read.
    const limit = Number(readFileSync('/proc/sys/net/core/wmem_max', 'utf8'));
    for (let left = Math.min(2 * limit, 512 * 1024) + 100_000; left > 0; left -= 150_000) {
      link.send(frameOf(event, Buffer.alloc(Math.min(left, 150_000))));
    }
    await sendParts(link, [
      announcing(2, { ...fetching, type: messageType.replyWithFds, status: status.ok }),
      1,
      1,
    ]);
    await until(() => descriptorCount(worker) === idle + 2 + 2, { what: 'them to wait' });
    client.destroy();
    await link.end;
  });

  describe('from a daemon', () => {
    const replied = { procedure: openGraphicsFd, serial: 2, type: messageType.replyWithFds };
    const fromDaemons: readonly (readonly [string, readonly Part[], RegExp])[] = [
      ['a count of 33', [announcing(33, replied)], /announced 33 descriptors/],
      ['a byte without one', [announcing(1, replied), Buffer.alloc(1)], /sent 0 descriptors/],
      ['two with one byte', [announcing(2, replied), 2], /sent 2 descriptors/],
      ['one too many', [announcing(1, { ...replied, serial: 7 }), 1, 1], /belongs to none/],
      ['one of a call', [announcing(1, { ...replied, type: 4 }), 1], /belongs to none/],
    ];
    for (const [what, parts, reason] of fromDaemons) {
      it(`${what}: its calls fail, and its connection is closed`, async () => {
        const { client, link, call: fetching } = await host.calling(host.qemu, openGraphicsFd);
        expect(fetching.serial).to.equal(2);
        await sendParts(link, parts).catch(() => undefined);
        expect(readError(await client.replyTo(2)).message).to.match(reason);
        await link.end;
        await client.ping();
      });
    }

    it('with a reply to no call: they are closed, and the connection goes on', async () => {
      const { client, link, call: fetching } = await host.calling(host.qemu, openGraphicsFd);
      await sendParts(link, [announcing(2, { ...replied, serial: 77 }), 1, 1]);
      link.reply(fetching);
      await client.replyTo(fetching.serial);
      expect(descriptorCount(worker)).to.be.at.most(idle + 2);
    });

    it('with a reply that has none: its calls fail, and the log says why', async () => {
      const { client, link, call: pending } = await host.calling(host.qemu, hypervisorCall);
      await sendParts(link, [
        announcing(1, { ...pending, type: messageType.replyWithFds, status: status.ok }),
        1,
      ]).catch(() => undefined);
      expect((await client.replyTo(pending.serial)).status).to.equal(status.error);
      await link.end;
      await host.logged(
        /virtqemud at .* sent descriptors that a reply to CONNECT_\w+ does not have/,
      );
    });

    for (const [what, parts] of [
      ['in the middle of a reply', [announcing(2, replied).subarray(0, 50)]],
      ['before the first descriptor', [announcing(2, replied)]],
      ['between two descriptors', [announcing(2, replied), 1]],
    ] as const) {
      it(`which leaves ${what}: the call fails, and nothing is left behind`, async () => {
        const { client, link } = await host.calling(host.qemu, openGraphicsFd);
        await sendParts(link, parts);
        link.destroy();
        expect(readError(await client.replyTo(2)).message).to.contain('Lost connection');
      });

      it(`to a client that leaves ${what}: nothing is left behind`, async () => {
        const { client, link } = await host.calling(host.qemu, openGraphicsFd);
        await sendParts(link, parts);
        client.destroy();
        await link.end;
      });
    }
  });
});
