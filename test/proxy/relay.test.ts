import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { keepalive, messageType, program, status } from '../../lib/rpc/frame.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import {
  encodeIdentityArguments,
  encodeString,
  procedure,
} from '../../lib/rpc/session-messages.js';
import type { TypedParameter } from '../../lib/rpc/typed-parameters.js';
import { frameOf, type FrameSocket, type ReceivedFrame } from '../peers/frame-socket.js';
import { readError, type RawClient } from '../peers/raw-client.js';
import { StandInHost } from '../peers/stand-in-host.js';
import { until } from '../peers/waiting.js';

const mebibyte = 1024 * 1024;

// Any calls of these drivers would do.
const hypervisorCall = 59;
const largeHypervisorCall = 11;
const storageCall = 209;
const otherStorageCall = 208;
const domainEvent = 318;
const networkEvent = 315;
const unknownEvent = 9000;

const eventFrame = (number: number, payload?: Buffer): Buffer =>
  frameOf({ procedure: number, type: messageType.message }, payload);

const replyFrame = (number: number, serial: number, payload?: Buffer): Buffer =>
  frameOf({ procedure: number, type: messageType.reply, serial }, payload);

const proceduresOf = (frames: readonly ReceivedFrame[]): number[] =>
  frames.map((frame) => frame.procedure);

describe('the relay between a client and its daemons', () => {
  let host: StandInHost;

  before(async () => {
    host = await StandInHost.start();
  });
  beforeEach(() => host.startDaemons());
  afterEach(() => host.stopDaemons());
  after(() => host.stop());

  describe('opening a daemon', () => {
    const refusal = new RpcError(errorCode.accessDenied, errorDomain.rpc, 'not for you');

    it('logs in, opens and says for whom, in this order', async () => {
      const { client, link, call } = await host.calling(host.storage, storageCall);
      link.reply(call);
      await client.replyTo(call.serial);
      const opening = [procedure.authList, procedure.connectOpen, procedure.connectSetIdentity];
      expect(proceduresOf(host.qemu.seen)).to.deep.equal(opening);
      expect(proceduresOf(host.storage.seen)).to.deep.equal([...opening, storageCall]);
      expect(host.qemu.seen[1]!.payload.toString('latin1')).to.contain('qemu:///system');
      const mode = process.getuid?.() === 0 ? 'system' : 'session';
      expect(host.storage.seen[1]!.payload.toString('latin1')).to.contain(`storage:///${mode}`);
      expect(host.storage.seen[2]!.payload.toString('latin1')).to.contain('unix-user-id');
    });

    it('takes each step only after the reply to the one before', async () => {
      const client = await host.opened();
      for (const number of [
        procedure.authList,
        procedure.connectOpen,
        procedure.connectSetIdentity,
      ]) {
        host.storage.answer(number, () => null);
      }
      client.begin(storageCall);
      const link = await host.storage.connection();
      for (const number of [
        procedure.authList,
        procedure.connectOpen,
        procedure.connectSetIdentity,
      ]) {
        const step = await link.takeCall(number);
        await client.ping();
        expect(link.frames, 'no step and no call beside this one').to.deep.equal([]);
        link.reply(
          step,
          number === procedure.authList ? Buffer.alloc(8, '\0\0\0\x01\0\0\0\0') : undefined,
        );
      }
      link.reply(await link.takeCall(storageCall));
      await client.take(({ procedure: number }) => number === storageCall, 'the reply');
    });

    it('fails when the daemon refuses the identity, and forwards nothing', async () => {
      host.qemu.answer(procedure.connectSetIdentity, () => refusal);
      const client = await host.connected();
      const reply = client.openUri('qemu:///system');
      const early = client.call(hypervisorCall);
      expect(readError(await reply)).to.include({
        code: 88,
        message: 'access denied: not for you',
      });
      expect(readError(await early).message).to.contain('hypervisor connection not open');
      await (
        await host.qemu.connection()
      ).end;
      expect(proceduresOf(host.qemu.seen)).to.not.include(hypervisorCall);
    });

    it('fails the call when a secondary daemon refuses the identity', async () => {
      host.storage.answer(procedure.connectSetIdentity, () => refusal);
      const client = await host.opened();
      for (const attempt of [1, 2]) {
        const error = readError(await client.call(storageCall));
        expect(error).to.include({ code: 88, message: 'access denied: not for you' });
        expect(host.storage.connections).to.have.length(attempt);
      }
      expect(proceduresOf(host.storage.seen)).to.not.include(storageCall);
    });

    const fred: TypedParameter[] = [
      { field: 'unix-user-id', type: 'unsignedHyper', value: 4242n },
      { field: 'user-name', type: 'string', value: 'fred' },
    ];

    const isRoot = process.getuid?.() === 0;
    it(`tells every daemon of the identity that a client has set${isRoot ? '' : ' (skipped: needs root)'}`, async function () {
      if (!isRoot) this.skip();
      const client = await host.opened();
      const identity = encodeIdentityArguments(fred);
      expect((await client.call(procedure.connectSetIdentity, identity)).status).to.equal(
        status.ok,
      );
      expect(host.qemu.seen.at(-1)!.payload.equals(identity)).to.be.true;
      client.begin(storageCall);
      await (await host.storage.connection()).takeCall(storageCall);
      expect(host.storage.seen[2]!.payload.equals(identity)).to.be.true;
      const late = readError(await client.call(procedure.connectSetIdentity, identity));
      expect(late).to.include({ code: 55, domain: 7 });
    });

    it('lets calls wait that come before the daemon is open', async () => {
      host.storage.answer(procedure.connectSetIdentity, () => null);
      const client = await host.opened();
      const serials = [1, 2, 3].map(() => client.begin(storageCall));
      const link = await host.storage.connection();
      link.reply(await link.takeCall(procedure.connectSetIdentity));
      for (const serial of serials) {
        const call = await link.takeCall(storageCall);
        expect(call.serial).to.equal(serial);
        link.reply(call);
        await client.replyTo(serial);
      }
    });

    it('lets calls wait that a client sends behind its OPEN, large ones too', async () => {
      host.qemu.answer(procedure.connectSetIdentity, () => null);
      const client = await host.connected();
      const text = encodeString('x'.repeat(mebibyte));
      const opened = client.openUri('qemu:///system');
      const small = client.begin(hypervisorCall);
      const large = client.begin(largeHypervisorCall, text);
      const link = await host.qemu.connection();
      link.reply(await link.takeCall(procedure.connectSetIdentity));
      await opened;
      expect((await link.takeCall(hypervisorCall)).serial).to.equal(small);
      const arrived = await link.takeCall(largeHypervisorCall);
      expect(arrived.serial).to.equal(large);
      expect(arrived.payload.equals(text)).to.be.true;
    });
  });

  describe('calls, replies and events', () => {
    it('lets replies pass each other', async () => {
      const client = await host.opened();
      const serials = [1, 2, 3].map(() => client.begin(hypervisorCall));
      const link = await host.qemu.connection();
      const calls: ReceivedFrame[] = [];
      while (calls.length < serials.length) calls.push(await link.takeCall(hypervisorCall));
      for (const call of calls.reverse()) {
        const answer = encodeString(`answer ${call.serial}`);
        link.reply(call, answer);
        expect((await client.replyTo(call.serial)).payload).to.deep.equal(answer);
      }
    });

    it('lets one daemon’s reply pass another’s', async () => {
      const { client, link, call } = await host.calling(host.storage, storageCall);
      const serial = client.begin(hypervisorCall);
      const hypervisor = await host.qemu.connection();
      hypervisor.reply(await hypervisor.takeCall(hypervisorCall));
      await client.replyTo(serial);
      link.reply(call);
      await client.replyTo(call.serial);
    });

    it('drops replies to nothing, events of other drivers and frames of odd types', async () => {
      const { client, link, call } = await host.calling(host.storage, storageCall);
      link.send(
        replyFrame(storageCall, call.serial + 1),
        replyFrame(otherStorageCall, call.serial),
        eventFrame(networkEvent),
        eventFrame(domainEvent),
        frameOf({ procedure: storageCall, serial: 9 }),
        frameOf({ procedure: storageCall, type: 7, serial: call.serial }),
        eventFrame(networkEvent, Buffer.alloc(mebibyte)),
        replyFrame(storageCall, call.serial + 1, Buffer.alloc(mebibyte)),
      );
      link.reply(call, encodeString('the one'));
      link.send(replyFrame(storageCall, call.serial));
      const reply = await client.take(() => true, 'the reply');
      expect(reply).to.include({ type: messageType.reply, serial: call.serial });
      expect(reply.payload).to.deep.equal(encodeString('the one'));
      await client.ping();
      expect(client.frames).to.deep.equal([]);
      await host.logged(/virtstoraged at '.*' sent a reply to no call/);
    });

    it('passes on the hypervisor’s events, those that a newer libvirt may have too', async () => {
      const client = await host.opened();
      const link = await host.qemu.connection();
      for (const number of [domainEvent, unknownEvent]) {
        link.send(eventFrame(number, encodeString('x')));
        const event = await client.take(() => true, 'the event');
        expect(event).to.include({ procedure: number, type: messageType.message, serial: 0 });
      }
    });

    it('answers a daemon’s PING itself', async () => {
      const client = await host.opened();
      const link = await host.qemu.connection();
      const header = { program: program.keepalive, type: messageType.message };
      link.send(frameOf({ ...header, procedure: keepalive.ping }));
      const pong = await link.take((frame) => frame.program === program.keepalive, 'the PONG');
      expect(pong.procedure).to.equal(keepalive.pong);
      await client.ping();
      expect(client.frames).to.deep.equal([]);
    });
  });

  describe('max_client_requests', () => {
    const limit = 5;

    /** A client with as many calls under way as may be, and `more` behind them. */
    async function busy(
      more: number,
    ): Promise<{ client: RawClient; link: FrameSocket; serials: number[] }> {
      const client = await host.opened();
      const serials = Array.from({ length: limit + more }, () => client.begin(hypervisorCall));
      const link = await host.qemu.connection();
      await until(() => link.frames.length >= limit, { what: 'the calls to arrive' });
      return { client, link, serials };
    }

    it('holds further calls back, while PING is answered within 100 ms', async () => {
      const { client, link, serials } = await busy(50);
      for (let round = 0; round < 20; round++) {
        const before = performance.now();
        await client.ping();
        expect(performance.now() - before).to.be.below(100);
      }
      expect(link.frames).to.have.length(limit);
      for (const serial of serials) {
        const call = await link.takeCall(hypervisorCall);
        expect(call.serial).to.equal(serial);
        expect(link.frames).to.have.length.below(limit);
        link.reply(call);
        await client.replyTo(serial);
      }
    });

    it('counts the calls of all daemons together', async () => {
      const client = await host.opened();
      for (let each = 0; each < limit; each++) client.begin(storageCall);
      const link = await host.storage.connection();
      await until(() => link.frames.length === limit, { what: 'the calls to arrive' });
      const serial = client.begin(hypervisorCall);
      await client.ping();
      const hypervisor = await host.qemu.connection();
      expect(hypervisor.frames).to.deep.equal([]);
      link.reply(await link.takeCall(storageCall));
      hypervisor.reply(await hypervisor.takeCall(hypervisorCall));
      await client.replyTo(serial);
    });

    it('does not hide that the client is gone', async () => {
      const { client, link } = await busy(50);
      client.destroy();
      await link.end;
      expect(link.frames).to.have.length(limit);
    });

    it('ends a client that has gone behind a large call, once it is its turn', async () => {
      const { client, link } = await busy(0);
      const large = frameOf({ procedure: largeHypervisorCall, serial: 99 }, Buffer.alloc(mebibyte));
      // As much as a socket takes at once, so that the end comes right behind it.
      await client.sendWithRegard(large.subarray(0, 100 * 1024));
      client.destroy();
      for (const call of link.frames) link.reply(call);
      await link.end;
    });

    it('lets a large call wait, and what comes behind it', async () => {
      const { client, link } = await busy(0);
      const text = encodeString(randomBytes(mebibyte).toString('base64'));
      const large = client.begin(largeHypervisorCall, text);
      const small = client.begin(hypervisorCall);
      const [first, ...blocked] = link.frames.splice(0);
      link.reply(first!);
      const arrived = await link.takeCall(largeHypervisorCall);
      expect(arrived.serial).to.equal(large);
      expect(arrived.payload.equals(text)).to.be.true;
      expect(link.frames).to.deep.equal([]);
      link.reply(arrived);
      await client.replyTo(large);
      const last = await link.takeCall(hypervisorCall);
      expect(last.serial).to.equal(small);
      for (const call of [...blocked, last]) link.reply(call);
      await client.replyTo(small);
    });
  });
});
