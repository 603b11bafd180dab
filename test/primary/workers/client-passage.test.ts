import { closeSync, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import type { ClientIntroduction } from '../../../lib/control/messages.js';
import { ClientPassage, mostUnderWay } from '../../../lib/primary/workers/client-passage.js';
import { receiveNumbered, sendNumbered } from '../../../lib/transport/numbered-descriptors.js';
import { SocketStream } from '../../../lib/transport/socket-stream.js';
import { socketPair } from '../../native/sockets.js';
import { until } from '../../peers/waiting.js';

describe('primary/workers/client-passage', () => {
  let near: Socket;
  let far: SocketStream;
  let passage: ClientPassage;
  let introduced: number[];
  let isBroken: boolean;
  let arrived: number[];
  let file: number;

  beforeEach(() => {
    const [one, other] = socketPair();
    near = new Socket({ fd: one });
    near.on('error', () => undefined);
    far = SocketStream.opened(other);
    introduced = [];
    isBroken = false;
    passage = new ClientPassage(
      near,
      ({ id }) => introduced.push(id),
      () => (isBroken = true),
    );
    arrived = [];
    file = openSync('/dev/null', 'r');
  });
  afterEach(() => {
    passage.end();
    near.destroy();
    far.destroy();
    closeSync(file);
  });

  const receive = (): void =>
    receiveNumbered(far, {
      arrived: (id, descriptor) => {
        arrived.push(id);
        expect(fstatSync(descriptor).isCharacterDevice()).to.equal(true);
        closeSync(descriptor);
      },
      lost: (id) => expect.fail(`${id} is lost`),
    });
  const add = (id: number, fd = file): void =>
    passage.add({ id } as ClientIntroduction, { fd, close: () => undefined });

  it('passes sockets in order, and introduces their clients', async () => {
    receive();
    const ids = [3, 1, 2];
    for (const id of ids) add(id);
    for (let count = 1; count <= ids.length; count++) {
      await until(() => arrived.length >= count, { what: `${count} of them` });
      passage.onTaken(arrived[count - 1]!);
    }
    expect([arrived, introduced]).to.deep.equal([ids, ids]);
  });

  it('has no more under way than the worker can take in one go', async () => {
    receive();
    const ids = Array.from({ length: 3 * mostUnderWay }, (_, index) => index);
    for (const id of ids) add(id);
    await until(() => arrived.length === mostUnderWay, { what: 'the first' });
    await nextTurn();
    expect(introduced).to.deep.equal(ids.slice(0, mostUnderWay));
    for (let taken = 1; taken <= 2 * mostUnderWay; taken++) {
      passage.onTaken(taken - 1);
      passage.onTaken(ids.length + taken);
      passage.onTaken(taken - 1);
      await until(() => arrived.length === mostUnderWay + taken, { what: 'one more' });
    }
    expect(arrived).to.deep.equal(ids);
  });

  it('waits for a worker that does not read, and goes on', async () => {
    const filling = { number: 0, descriptor: file };
    while (sendNumbered(near, [filling]));
    add(1);
    await nextTurn();
    expect(introduced).to.deep.equal([]);
    receive();
    await until(() => arrived.at(-1) === 1, { what: 'the client' });
    expect(introduced).to.deep.equal([1]);
  });

  it('does not pass one that was closed before its turn', async () => {
    receive();
    add(1, -1);
    add(2);
    await until(() => arrived.length > 0, { what: 'the other' });
    expect([arrived, introduced]).to.deep.equal([[2], [2]]);
  });

  it('says when the worker is gone, and passes nothing once it has ended', async () => {
    far.destroy();
    add(1);
    await nextTurn();
    await nextTurn();
    add(2);
    passage.end();
    await nextTurn();
    expect(introduced).to.deep.equal([]);
    expect(isBroken).to.equal(true);
  });
});
