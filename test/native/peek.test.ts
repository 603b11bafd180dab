import { once } from 'node:events';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { expect } from 'chai';
import { hasUnread, peek } from '../../lib/native/peek.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import { until } from '../peers/waiting.js';

describe('a look at what waits in a socket', () => {
  const into = Buffer.alloc(8);
  let accepted: Socket;
  let other: Socket;

  beforeEach(async () => {
    const server = createServer({ pauseOnConnect: true }).listen(0);
    await once(server, 'listening');
    const connection = once(server, 'connection') as Promise<[Socket]>;
    other = createConnection({ port: (server.address() as AddressInfo).port });
    [accepted] = await connection;
    server.close();
  });
  afterEach(() => {
    accepted.destroy();
    other.destroy();
  });

  const peeked = (): number | null => peek(handleOf(accepted).fd, into);

  it('finds nothing at first', () => {
    expect(peeked()).to.be.null;
  });

  it('finds bytes and leaves them there', async () => {
    other.write('hello');
    await until(() => peeked() === 5, { what: 'the bytes' });
    expect(into.toString('latin1', 0, 5)).to.equal('hello');
    const read = once(accepted, 'data');
    accepted.resume();
    expect(String((await read)[0])).to.equal('hello');
  });

  it('finds that bytes wait, until they are read or when nothing will come', async () => {
    const { fd } = handleOf(accepted);
    expect(hasUnread(fd)).to.be.false;
    other.end('hello');
    await until(() => hasUnread(fd), { what: 'the bytes' });
    accepted.resume();
    await once(accepted, 'end');
    expect(hasUnread(fd)).to.be.false;
  });

  it('finds no more than was asked for', async () => {
    other.write('a longer text');
    await until(() => peeked() === 8, { what: 'the bytes' });
  });

  it('finds the end', async () => {
    other.destroy();
    await until(() => peeked() === 0, { what: 'the end' });
  });

  it('finds a broken connection', async () => {
    other.resetAndDestroy();
    await until(() => peeked() === 0, { what: 'the end' });
  });
});
