import { closeSync, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { expect } from 'chai';
import type { WorkerMessage } from '../../../lib/control/messages.js';
import { sendNumbered } from '../../../lib/transport/numbered-descriptors.js';
import { PrimaryConnector } from '../../../lib/worker/daemon/connector.js';
import type { Endpoint } from '../../../lib/worker/daemon/directory.js';
import { ConnectError } from '../../../lib/worker/daemon/errors.js';
import { SocketStream } from '../../../lib/transport/socket-stream.js';
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
  let passage: SocketStream;
  let asked: WorkerMessage[];
  let connector: PrimaryConnector;

  beforeEach(() => {
    const [near, far] = socketPair();
    primary = new Socket({ fd: near });
    passage = SocketStream.opened(far);
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

  const never = new AbortController();
  const pass = (number: number, descriptor: number): void => {
    sendNumbered(primary, [{ number, descriptor }]);
    closeSync(descriptor);
  };
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
    pass(1, descriptor);
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
    const failing = failure(connector.connect(7, endpoint, giveUp));
    giveUp.abort(new Error('gave up'));
    expect((await failing).message).to.equal('gave up');
    const [near, descriptor] = socketPair();
    const daemon = new Socket({ fd: near });
    let ended = false;
    daemon.on('end', () => (ended = true)).resume();
    pass(1, descriptor);
    await until(() => ended, { what: 'the end of the connection' });
    daemon.destroy();
  });

  describe('ahead of its client', () => {
    const endpointOf = (driver: string): Endpoint => ({ ...endpoint, driver });
    let daemon: Socket;
    let isClosed: boolean;

    /** One client connects; then another is there, and what is asked for ahead of it comes. */
    beforeEach(async () => {
      const [near, descriptor] = socketPair();
      const first = connector.connect(1, endpoint, never);
      pass(1, descriptor);
      (await first).destroy();
      closeSync(near);
      connector.connectAhead(2, true, endpointOf);
      expect(asked.splice(0).at(-1)).to.deep.include({ client: 2, driver: 'qemu', number: 2 });
      const [far, ahead] = socketPair();
      daemon = new Socket({ fd: far });
      isClosed = false;
      daemon.on('end', () => (isClosed = true)).resume();
      pass(2, ahead);
    });
    afterEach(() => daemon.destroy());

    const closes = (): Promise<unknown> =>
      until(() => isClosed, { what: 'the end of the connection' });

    it('has the socket there when it is wanted, for one client once', async () => {
      const stream = await connector.connect(2, endpoint, never);
      expect(asked).to.deep.equal([]);
      connector.forget(2);
      stream.write(Buffer.from('x'));
      await new Promise((resolve) => daemon.once('data', resolve));
      expect(isClosed).to.equal(false);
      stream.destroy();
      void failure(connector.connect(2, endpoint, never));
      await until(() => asked.length === 1, { what: 'a question' });
    });

    it('closes it when another one is wanted', async () => {
      void failure(connector.connect(2, { ...endpoint, readOnly: false }, never));
      await closes();
      expect(asked).to.have.length(1);
    });

    it('closes it when the client leaves', async () => {
      connector.forget(2);
      await closes();
    });

    it('closes it when nobody wants it', () => closes());

    it('asks again when the daemon has gone', async () => {
      await new Promise(setImmediate);
      daemon.destroy();
      await new Promise((resolve) => setTimeout(resolve, 50));
      void failure(connector.connect(2, endpoint, never));
      await until(() => asked.length === 1, { what: 'a question' });
    });

    it('gives up when its client does', async () => {
      const giveUp = new AbortController();
      const failing = failure(connector.connect(2, endpoint, giveUp));
      giveUp.abort(new Error('gave up'));
      expect((await failing).message).to.equal('gave up');
      await closes();
    });
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
