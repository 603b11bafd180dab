import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { Logger, LogThreshold } from '../../../lib/logging/logger.js';
import {
  encodeReply,
  messageType,
  procedureOf,
  program,
  serialOf,
  statusOf,
  callOf,
} from '../../../lib/rpc/frame.js';
import { encodeErrorReply, errorCode, errorDomain, RpcError } from '../../../lib/rpc/rpc-error.js';
import {
  authType,
  encodeAuthList,
  encodeInt,
  procedure,
} from '../../../lib/rpc/session-messages.js';
import type { Connect } from '../../../lib/worker/daemon/connection.js';
import type { Endpoint } from '../../../lib/worker/daemon/directory.js';
import type { LinkOwner, Loss } from '../../../lib/worker/daemon/link-owner.js';
import { DaemonLink } from '../../../lib/worker/daemon/link.js';
import { DaemonRestarts } from '../../../lib/worker/daemon/restarts.js';
import { CallMeter } from '../../../lib/worker/reports/call-meter.js';
import { frameOf } from '../../peers/frame-socket.js';
import { until } from '../../peers/waiting.js';
import { ScriptedStream } from '../scripted-stream.js';

const endpoint: Endpoint = {
  driver: 'qemu',
  daemon: 'virtqemud',
  path: '/run/virtqemud-sock',
  readOnly: false,
};
const getHostname = 59;
const domainCreate = 9;
const volumeUpload = 208;
const registerAny = 316;
const lifecycle = 318;

const opening: ReadonlyMap<number, Buffer> = new Map([
  [procedure.authList, encodeAuthList([authType.none])],
  [procedure.connectOpen, Buffer.alloc(0)],
  [procedure.connectSetIdentity, Buffer.alloc(0)],
]);

/** What the link tells its relay. */
class RecordingOwner implements LinkOwner<DaemonLink> {
  readonly frames: Buffer[] = [];
  readonly losses: Loss[] = [];
  readonly stays: { error: unknown; repeated: number[] }[] = [];
  reopenings = 0;

  fromDaemon(_link: DaemonLink, bytes: Buffer, start: number, end: number): void {
    this.frames.push(Buffer.from(bytes.subarray(start, end)));
  }
  replyWithDescriptors(): void {
    throw new Error('no descriptors come here');
  }
  largeReplyDescriptors(): void {
    throw new Error('no descriptors come here');
  }
  claimClient(): boolean {
    return true;
  }
  releaseClient(): void {
    // The client is never in the way.
  }
  answered(): void {
    // Told by `frames`.
  }
  turnEnded(link: DaemonLink): void {
    link.flush();
  }
  drained(): void {
    // Nothing is queued.
  }
  lost(_link: DaemonLink, loss: Loss): void {
    this.losses.push(loss);
  }
  reopened(): void {
    this.reopenings++;
  }
  stayedAway(_link: DaemonLink, error: unknown, repeated: readonly { serial: number }[]): void {
    this.stays.push({ error, repeated: repeated.map(({ serial }) => serial) });
  }
}

const call = (number: number, serial: number, payload?: Buffer): Buffer =>
  frameOf({ procedure: number, serial }, payload);

describe('a link to a daemon', () => {
  let streams: ScriptedStream[];
  let owner: RecordingOwner;
  let meter: CallMeter;
  let link: DaemonLink;
  /** What the next connections meet, in this order; a usual daemon when there is none left. */
  let connects: Connect[];
  /** Procedures that the daemons leave without an answer. */
  let unanswered: Set<number>;
  /** What the daemons give as ids of callbacks. */
  let nextId: number;

  function daemon(): ScriptedStream {
    const stream = new ScriptedStream();
    streams.push(stream);
    stream.onFrame = (frame) => {
      const number = procedureOf(frame, 0);
      if (unanswered.has(number)) return;
      const payload = number === registerAny ? encodeInt(nextId) : opening.get(number);
      // As from a socket: never from within the write.
      if (payload !== undefined) {
        setImmediate(() => stream.arrive(encodeReply(callOf(frame, 0), payload)));
      }
    };
    return stream;
  }

  function makeLink(patience = 5000, openTimeoutSeconds = 5, maxAtOnce = 4): DaemonLink {
    const log = new Logger('test', new LogThreshold({ level: 4, filters: [] }), () => undefined);
    meter = new CallMeter(new Set([endpoint.daemon]));
    const restarts = new DaemonRestarts({ patience, maxAtOnce }, log, meter);
    const connect: Connect = (...what) =>
      (connects.shift() ?? (() => Promise.resolve(daemon())))(...what);
    const settings = { connect, identity: () => [], openTimeoutSeconds, restarts, log };
    const what = { name: 'qemu:///system', flags: 0 };
    return new DaemonLink(endpoint, 'hypervisor', what, owner, settings);
  }

  const reopening = (): number =>
    meter.take().daemons.reduce((sum, daemon) => sum + daemon.reopening, 0);

  const forward = (frame: Buffer): void => {
    link.forwardCall(frame, 0, frame.length);
    link.flush();
  };
  const stream = (index: number): Promise<ScriptedStream> =>
    until(() => streams[index], { what: `connection ${index}` });
  const proceduresOf = (index: number): number[] =>
    (streams[index]?.frames ?? []).map((frame) => procedureOf(frame, 0));
  const opened = (): Promise<unknown> =>
    until(() => link.state === 'open', { what: 'the link to be open' });

  beforeEach(() => {
    streams = [];
    connects = [];
    owner = new RecordingOwner();
    unanswered = new Set();
    nextId = 7;
  });

  afterEach(() => link.close());

  it('asks how to log in, opens and says for whom, each after the reply to the one before', async () => {
    link = makeLink();
    unanswered = new Set(opening.keys());
    const done = link.open();
    const { authList, connectOpen, connectSetIdentity } = procedure;
    const first = await stream(0);
    for (const [index, number] of [authList, connectOpen, connectSetIdentity].entries()) {
      await until(() => first.frames[index], { what: `call ${index} of the opening` });
      await nextTurn();
      expect(proceduresOf(0)).to.eql(
        [authList, connectOpen, connectSetIdentity].slice(0, index + 1),
      );
      expect(link.state).to.equal('opening');
      first.arrive(encodeReply(callOf(first.frames[index]!, 0), opening.get(number)));
    }
    await done;
    expect(link.state).to.equal('open');
  });

  it('is closed for good when its daemon refuses to be opened', async () => {
    link = makeLink();
    unanswered.add(procedure.connectOpen);
    const done = link.open().then(
      () => 'opened',
      (error: unknown) => error,
    );
    const first = await stream(0);
    const asked = await until(() => first.frames[1], { what: 'CONNECT_OPEN' });
    const refusal = new RpcError(errorCode.internal, errorDomain.rpc, 'not today');
    first.arrive(encodeErrorReply(callOf(asked, 0), refusal));
    expect(String(await done)).to.contain('not today');
    expect(link.state).to.equal('closed');
    expect(first.isDestroyed).to.be.true;
  });

  it('does not wait longer than open_timeout for a daemon that says nothing', async () => {
    link = makeLink(5000, 0.05);
    unanswered.add(procedure.authList);
    const error: unknown = await link.open().catch((failure: unknown) => failure);
    expect(String(error)).to.contain('did not answer within 0.05 seconds');
    expect(streams[0]?.isDestroyed).to.be.true;
  });

  it('closes a connection that comes about after it was closed itself', async () => {
    link = makeLink();
    let connected: () => void = () => undefined;
    connects.push(() => new Promise((resolve) => (connected = () => resolve(daemon()))));
    const done = link.open().catch((error: unknown) => error);
    await nextTurn();
    link.close();
    connected();
    expect(String(await done)).to.contain('the link was closed');
    expect(streams[0]?.isDestroyed).to.be.true;
  });

  describe('that is open', () => {
    beforeEach(async () => {
      link = makeLink();
      await link.open();
    });

    it('passes on the answer to a call and drops one to none', () => {
      forward(call(getHostname, 3));
      expect(link.pendingCalls).to.equal(1);
      const reply = encodeReply({ program: program.remote, procedure: getHostname, serial: 3 });
      streams[0]!.arrive(reply, reply);
      expect(owner.frames).to.eql([reply]);
      expect(link.pendingCalls).to.equal(0);
    });

    it('sends calls again that only ask, and fails those that may have changed something', async () => {
      forward(call(getHostname, 1));
      forward(call(domainCreate, 2));
      forward(call(getHostname, 3));
      streams[0]!.breakOff();
      expect(owner.losses[0]?.calls.map(({ serial }) => serial)).to.eql([2]);
      await opened();
      expect(streams[0]!.isDestroyed).to.be.true;
      expect(streams[1]!.frames.slice(3).map((frame) => serialOf(frame, 0))).to.eql([1, 3]);
      expect(owner.reopenings).to.equal(1);
      expect(link.pendingCalls).to.equal(2);
    });

    it('ends a stream at the loss, once', () => {
      forward(call(volumeUpload, 4));
      streams[0]!.breakOff();
      expect(owner.losses[0]?.calls.map(({ serial }) => serial)).to.eql([4]);
      expect(owner.losses[0]?.streams).to.eql([]);
    });

    it('is away until the next call when nothing asks for the daemon', async () => {
      streams[0]!.breakOff();
      expect(link.state).to.equal('away');
      const waiting = call(getHostname, 5);
      link.hold(waiting, 0, waiting.length);
      expect(link.state).to.equal('opening');
      await opened();
      expect(link.takeWaiting()).to.eql([waiting]);
      expect(link.pendingCalls).to.equal(0);
    });

    it('keeps the order of calls that wait', () => {
      streams[0]!.breakOff();
      for (const serial of [5, 6, 7]) {
        const waiting = call(getHostname, serial);
        link.hold(waiting, 0, waiting.length);
      }
      expect(link.pendingCalls).to.equal(3);
      expect(link.takeWaiting().map((frame) => serialOf(frame, 0))).to.eql([5, 6, 7]);
    });

    it('tries again when the connection is lost once more while it is opened again', async () => {
      forward(call(getHostname, 1));
      unanswered.add(procedure.connectOpen);
      streams[0]!.breakOff();
      const second = await stream(1);
      await until(() => second.frames.length === 2, { what: 'CONNECT_OPEN' });
      unanswered.clear();
      second.breakOff();
      await opened();
      expect(streams).to.have.length(3);
      expect(second.isDestroyed).to.be.true;
      expect(owner.losses, 'told of once').to.have.length(1);
      expect(streams[2]!.frames.slice(3).map((frame) => serialOf(frame, 0))).to.eql([1]);
    });

    it('does not send a call for ever that daemons die of', async () => {
      forward(call(getHostname, 1));
      for (let death = 0; death < 4; death++) {
        const latest = await stream(death);
        await opened();
        latest.breakOff();
      }
      expect(owner.losses.map(({ calls }) => calls.length)).to.eql([0, 0, 0, 1]);
      expect(link.state).to.equal('away');
    });

    it('drops its calls and closes its connection when it is closed while it is opened again', async () => {
      forward(call(getHostname, 1));
      unanswered.add(procedure.connectOpen);
      streams[0]!.breakOff();
      const second = await stream(1);
      await until(() => second.frames.length === 2, { what: 'CONNECT_OPEN' });
      expect(reopening()).to.equal(1);
      link.close();
      expect(second.isDestroyed).to.be.true;
      expect(link.state).to.equal('closed');
      await until(() => reopening() === 0, { what: 'nobody to wait for the daemon' });
      expect(owner.stays).to.eql([]);
      expect(owner.reopenings).to.equal(0);
      expect(streams).to.have.length(2);
    });

    describe('and has asked for events', () => {
      beforeEach(() => {
        forward(call(registerAny, 1, Buffer.alloc(8)));
        return until(() => owner.frames[0], { what: 'the registration' });
      });

      const event = (id: number): Buffer =>
        frameOf({ procedure: lifecycle, type: messageType.message }, encodeInt(id));

      it('asks the daemon that came back for them, before anybody calls it', async () => {
        streams[0]!.breakOff();
        await opened();
        expect(proceduresOf(1)).to.eql([...opening.keys(), registerAny]);
        expect(streams[1]!.frames[3]!.subarray(28)).to.eql(Buffer.alloc(8));
      });

      it('gives its events the number that the client knows', async () => {
        nextId = 40;
        streams[0]!.breakOff();
        await opened();
        streams[1]!.arrive(event(40));
        expect(owner.frames.slice(1)).to.eql([event(7)]);
      });

      it('passes on events that come while it asks for them, behind the opening', async () => {
        unanswered.add(registerAny);
        nextId = 40;
        streams[0]!.breakOff();
        const second = await stream(1);
        const asked = await until(() => second.frames[3], { what: 'the registration' });
        second.arrive(event(40));
        expect(owner.frames).to.have.length(1);
        second.arrive(encodeReply(callOf(asked, 0), encodeInt(40)));
        await opened();
        expect(owner.frames.slice(1)).to.eql([event(7)]);
      });

      it('leaves its place to others when it is closed while it asks for them', async () => {
        unanswered.add(registerAny);
        streams[0]!.breakOff();
        const second = await stream(1);
        await until(() => second.frames[3], { what: 'the registration' });
        link.close();
        await until(() => reopening() === 0, { what: 'nobody to wait for the daemon' });
        expect(second.isDestroyed).to.be.true;
      });
    });
  });

  it('gives up a daemon that takes no registration within open_timeout', async () => {
    link = makeLink(5000, 0.2);
    await link.open();
    forward(call(registerAny, 1, Buffer.alloc(8)));
    await until(() => owner.frames[0], { what: 'the registration' });
    unanswered.add(registerAny);
    streams[0]!.breakOff();
    const stay = await until(() => owner.stays[0], { what: 'the link to give up' });
    expect(String(stay.error)).to.contain('did not answer within 0.2 seconds');
    expect(link.state).to.equal('away');
    expect(streams[1]?.isDestroyed).to.be.true;
  });

  it('fails its calls when the daemon stays away for longer than daemon_restart_timeout', async () => {
    link = makeLink(60);
    await link.open();
    const missing = Object.assign(new Error('gone'), { code: 'ENOENT', errno: -2 });
    connects.push(...Array<Connect>(10).fill(() => Promise.reject(missing)));
    forward(call(getHostname, 9));
    streams[0]!.breakOff();
    const stay = await until(() => owner.stays[0], { what: 'the link to give up' });
    expect(stay.repeated).to.eql([9]);
    expect(String(stay.error)).to.contain('Failed to connect socket');
    expect(link.state).to.equal('away');
    expect(link.pendingCalls).to.equal(0);
  });

  it('is closed by a loss when daemons are not waited for', async () => {
    link = makeLink(0);
    await link.open();
    forward(call(getHostname, 9));
    streams[0]!.breakOff();
    expect(link.state).to.equal('closed');
    expect(owner.losses[0]?.calls.map(({ serial }) => serial)).to.eql([9]);
    expect(streams).to.have.length(1);
  });

  it('is closed by a daemon that breaks the rules of the wire', async () => {
    link = makeLink();
    await link.open();
    streams[0]!.arrive(Buffer.from('00000001deadbeef', 'hex'));
    expect(link.state).to.equal('closed');
    expect(owner.losses[0]?.reason).to.contain('a frame of 1 bytes');
    expect(streams[0]!.isDestroyed).to.be.true;
  });

  it('answers PINGs of its daemon itself', async () => {
    link = makeLink();
    await link.open();
    const ping = { program: program.keepalive, procedure: 1, type: messageType.message };
    streams[0]!.arrive(frameOf(ping));
    const pong = streams[0]!.frames.at(-1)!;
    expect([procedureOf(pong, 0), statusOf(pong, 0)]).to.eql([2, 0]);
    expect(owner.frames).to.eql([]);
  });
});
