import { expect } from 'chai';
import { callOf, encodeReply, headerLength, messageType, program } from '../../../lib/rpc/frame.js';
import { procedureAt, type Procedure } from '../../../lib/rpc/procedures.js';
import { encodeInt } from '../../../lib/rpc/session-messages.js';
import { DaemonRefusal } from '../../../lib/worker/daemon/conversation.js';
import { maxRegistrations, Registrations } from '../../../lib/worker/daemon/registrations.js';
import { frameOf } from '../../peers/frame-socket.js';

const domains = { register: 316, deregister: 317, event: 318 };
const networks = { register: 313, deregister: 314, event: 315 };

function rowOf(number: number): Procedure {
  const row = procedureAt(program.remote, number);
  if (row === undefined) throw new Error(`no procedure ${number}`);
  return row;
}

describe('the events that a client has asked a daemon for', () => {
  let registrations: Registrations;
  let serial: number;

  beforeEach(() => {
    registrations = new Registrations();
    serial = 0;
  });

  /** The call as the daemon gets it. */
  function send(number: number, payload?: Buffer): Buffer {
    const frame = frameOf({ procedure: number, serial: ++serial }, payload);
    registrations.onCall(rowOf(number), frame, 0, frame.length);
    return frame;
  }

  /** The payload of the reply as the client gets it. */
  function answer(call: Buffer, payload: Buffer = Buffer.alloc(0), succeeded = true): Buffer {
    const reply = encodeReply(callOf(call, 0), payload);
    const row = rowOf(callOf(call, 0).procedure);
    registrations.onReply(row, reply, 0, reply.length, succeeded);
    return reply.subarray(headerLength);
  }

  /** Registers, and gives the id that the client is told. */
  const register = (number: number, daemonId: number): number =>
    answer(send(number, Buffer.alloc(8)), encodeInt(daemonId)).readInt32BE(0);

  /** The id of an event as the client gets it. */
  function eventId(number: number, id: number): number {
    const header = { procedure: number, type: messageType.message };
    const event = frameOf(header, encodeInt(id));
    registrations.onEvent(event, 0, event.length);
    return event.readInt32BE(headerLength);
  }

  const clientIds = (): (number | null)[] => registrations.all.map(({ clientId }) => clientId);

  /** The daemon comes back and gives these ids, or refuses. */
  async function restart(...ids: readonly (number | null)[]): Promise<void> {
    registrations.onLost();
    const left = [...ids];
    await registrations.renew({
      ask: () => {
        const id = left.shift() ?? null;
        return id === null
          ? Promise.reject(new DaemonRefusal(Buffer.alloc(0)))
          : Promise.resolve(encodeInt(id));
      },
      throwIfFailed: () => undefined,
    });
    expect(left, 'each was asked for').to.eql([]);
  }

  it('are those whose registration succeeded', () => {
    const first = send(domains.register, Buffer.alloc(8));
    const second = send(domains.register, Buffer.alloc(8));
    expect(registrations.isEmpty).to.be.true;
    answer(second, encodeInt(1));
    answer(first, Buffer.alloc(0), false);
    expect(clientIds()).to.eql([1]);
  });

  it('are not touched by an answer to no call', () => {
    answer(frameOf({ procedure: domains.register, serial: 99 }), encodeInt(1));
    expect(registrations.isEmpty).to.be.true;
  });

  it('have the daemon’s numbers until it is restarted', () => {
    expect(register(domains.register, 5)).to.equal(5);
    expect(eventId(domains.event, 5)).to.equal(5);
    expect(send(domains.deregister, encodeInt(5)).readInt32BE(headerLength)).to.equal(5);
  });

  it('keep the client’s numbers when the daemon gives others', async () => {
    register(domains.register, 0);
    register(domains.register, 1);
    await restart(1, 0);
    expect(eventId(domains.event, 1)).to.equal(0);
    expect(eventId(domains.event, 0)).to.equal(1);
    expect(send(domains.deregister, encodeInt(0)).readInt32BE(headerLength)).to.equal(1);
  });

  it('of guests and of networks may have the same number', async () => {
    register(domains.register, 0);
    register(networks.register, 0);
    await restart(8, 9);
    expect(eventId(domains.event, 8)).to.equal(0);
    expect(eventId(networks.event, 9)).to.equal(0);
    expect(eventId(networks.event, 8), 'nobody’s').to.equal(8);
    answer(send(networks.deregister, encodeInt(0)));
    expect(registrations.all.map(({ row }) => row.route)).to.eql(['hypervisor']);
  });

  it('get a free number where the daemon gives one that the client knows already', async () => {
    register(domains.register, 0);
    register(domains.register, 1);
    await restart(1, 2);
    expect(register(domains.register, 0)).to.equal(2);
    expect(eventId(domains.event, 0)).to.equal(2);
    expect(register(networks.register, 0), 'another family').to.equal(0);
  });

  it('lapse when the daemon does not take them again, and can be taken back nevertheless', async () => {
    register(domains.register, 3);
    await restart(null);
    expect(registrations.all[0]?.daemonId).to.equal(null);
    const call = send(domains.deregister, encodeInt(3));
    expect(call.readInt32BE(headerLength), 'no id of the daemon’s').to.equal(-1);
    answer(call, undefined, false);
    expect(clientIds()).to.eql([3]);
    answer(send(domains.deregister, encodeInt(3)));
    expect(registrations.isEmpty).to.be.true;
  });

  it('do not follow from a registration under way at the loss', () => {
    const call = send(domains.register, Buffer.alloc(8));
    registrations.onLost();
    answer(call, encodeInt(4));
    expect(registrations.isEmpty).to.be.true;
  });

  const legacy: readonly (readonly [begin: number, end: number])[] = [
    [105, 106],
    [167, 168],
    [360, 361],
  ];
  for (const [begin, end] of legacy) {
    it(`without numbers begin with procedure ${begin} and end with ${end}`, () => {
      const kind = begin === 167 ? encodeInt(2) : undefined;
      answer(send(begin, kind));
      expect(clientIds()).to.eql([null]);
      answer(send(end, kind));
      expect(registrations.isEmpty).to.be.true;
    });
  }

  it('of one kind without numbers do not end with those of another', () => {
    answer(send(167, encodeInt(2)));
    answer(send(167, encodeInt(3)));
    answer(send(168, encodeInt(3)));
    expect(registrations.all.map(({ payload }) => payload.readInt32BE(0))).to.eql([2]);
    answer(send(106));
    expect(registrations.all).to.have.length(1);
  });

  it('are asked for again with the arguments of the call, oldest first', async () => {
    answer(send(167, encodeInt(2)));
    answer(send(domains.register, encodeInt(9)), encodeInt(0));
    const asked: [number, number][] = [];
    registrations.onLost();
    await registrations.renew({
      ask: (number, payload = Buffer.alloc(4)) => {
        asked.push([number, payload.readInt32BE(0)]);
        return Promise.resolve(encodeInt(6));
      },
      throwIfFailed: () => undefined,
    });
    expect(asked).to.eql([
      [167, 2],
      [domains.register, 9],
    ]);
    expect(registrations.all.map(({ daemonId }) => daemonId)).to.eql([null, 6]);
  });

  it('are not asked for again behind the end of the connection', async () => {
    register(domains.register, 0);
    const ended = new Error('gone');
    const conversation = { ask: () => Promise.reject(ended), throwIfFailed: () => undefined };
    const outcome: unknown = await registrations
      .renew(conversation)
      .catch((error: unknown) => error);
    expect(outcome).to.equal(ended);
  });

  describe('as many as can be remembered', () => {
    beforeEach(() => {
      for (let id = 0; id < maxRegistrations; id++) register(domains.register, id);
    });

    it('are complete until there is one more', () => {
      expect(registrations.areIncomplete).to.be.false;
      register(domains.register, maxRegistrations);
      expect(registrations.areIncomplete).to.be.true;
      expect(registrations.all).to.have.length(maxRegistrations);
    });

    it('can be taken back, with the daemon’s number after a restart', async () => {
      await restart(...clientIds().map((id) => (id ?? 0) + 5000));
      const call = send(domains.deregister, encodeInt(1));
      expect(call.readInt32BE(headerLength)).to.equal(5001);
      answer(call);
      expect(registrations.areIncomplete).to.be.false;
      expect(registrations.all).to.have.length(maxRegistrations - 1);
    });

    it('leave one more its number, which nobody has translated', async () => {
      await restart(...clientIds());
      expect(register(domains.register, 7777)).to.equal(7777);
      expect(send(domains.deregister, encodeInt(7777)).readInt32BE(headerLength)).to.equal(7777);
    });
  });
});
