import { closeSync, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { expect } from 'chai';
import type { WorkerMessage } from '../../../lib/control/messages.js';
import { sendNumbered } from '../../../lib/transport/numbered-descriptors.js';
import { PrimaryConnector } from '../../../lib/worker/daemon/connector.js';
import type { Endpoint } from '../../../lib/worker/daemon/directory.js';
import { ConnectError } from '../../../lib/worker/daemon/errors.js';
import { socketPair } from '../../native/sockets.js';
import { until } from '../../peers/waiting.js';

const endpoint: Endpoint = {
  driver: 'qemu',
  daemon: 'virtqemud',
  path: '/run/virtqemud-sock-ro',
  readOnly: true,
};

describe('worker/daemon/connector', () => {
  let primary: Socket;
  let passage: Socket;
  let asked: WorkerMessage[];
  let connector: PrimaryConnector;

  beforeEach(() => {
    const [near, far] = socketPair();
    primary = new Socket({ fd: near });
    passage = new Socket({ fd: far });
    asked = [];
    connector = new PrimaryConnector(
      (question) => asked.push(question),
      passage,
      (driver) => driver !== 'nosuch',
    );
  });
  afterEach(() => {
    primary.destroy();
    passage.destroy();
  });

  const never = new AbortController().signal;
  const failure = (connecting: Promise<unknown>): Promise<NodeJS.ErrnoException> =>
    connecting.then(
      () => expect.fail('it connected'),
      (error: unknown) => error as NodeJS.ErrnoException,
    );

  it('names client, driver and kind of socket, and takes the socket that comes', async () => {
    const connecting = connector.connect(7, endpoint, never);
    expect(asked).to.deep.equal([
      { kind: 'connect', client: 7, number: 1, driver: 'qemu', readOnly: true },
    ]);
    const [daemon, descriptor] = socketPair();
    sendNumbered(primary, [{ number: 1, descriptor }]);
    const stream = await connecting;
    expect(fstatSync(stream.fd).isSocket()).to.equal(true);
    stream.destroy();
    closeSync(daemon);
  });

  it('fails as connect(2) does', async () => {
    const failing = failure(connector.connect(7, endpoint, never));
    connector.onAnswer({ kind: 'unconnected', number: 1, code: 'ECONNREFUSED' });
    const error = await failing;
    expect(error).to.include({ code: 'ECONNREFUSED', errno: -111, syscall: 'connect' });
    expect(new ConnectError('virtqemud', endpoint.path, error).message).to.equal(
      "Failed to connect socket to '/run/virtqemud-sock-ro': Connection refused",
    );
  });

  it('asks for no driver of which there is nothing in the configuration', async () => {
    const error = await failure(connector.connect(7, { ...endpoint, driver: 'nosuch' }, never));
    expect(error.code).to.equal('ENOENT');
    expect(asked).to.deep.equal([]);
  });

  it('closes a socket that comes after its client has given up', async () => {
    const giveUp = new AbortController();
    const failing = failure(connector.connect(7, endpoint, giveUp.signal));
    giveUp.abort(new Error('gave up'));
    expect((await failing).message).to.equal('gave up');
    const [near, descriptor] = socketPair();
    const daemon = new Socket({ fd: near });
    let ended = false;
    daemon.on('end', () => (ended = true)).resume();
    sendNumbered(primary, [{ number: 1, descriptor }]);
    await until(() => ended, { what: 'the end of the connection' });
    daemon.destroy();
  });

  it('keeps answers apart', async () => {
    const [one, other] = [1, 2].map((client) =>
      failure(connector.connect(client, endpoint, never)),
    );
    const looking = connector.exists(endpoint);
    connector.onAnswer({ kind: 'seen', number: 3, exists: true });
    connector.onAnswer({ kind: 'unconnected', number: 2, code: 'EAGAIN' });
    connector.onAnswer({ kind: 'unconnected', number: 1, code: 'ENOENT' });
    connector.onAnswer({ kind: 'unconnected', number: 1, code: 'ENOENT' });
    expect([(await one)?.code, (await other)?.code]).to.deep.equal(['ENOENT', 'EAGAIN']);
    expect(await looking).to.equal(true);
  });
});
