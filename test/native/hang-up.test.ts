import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { rm } from 'node:fs/promises';
import { expect } from 'chai';
import { hasHungUp, isGone, withNews } from '../../lib/native/hang-up.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import { freshDirectory, until } from '../peers/waiting.js';

describe('hang-ups', () => {
  let directory: string;

  before(async () => {
    directory = await freshDirectory();
  });
  after(() => rm(directory, { recursive: true }));

  it('are seen on a socket that is not read, with bytes before them', async () => {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
    server.listen(join(directory, 'sock'));
    await once(server, 'listening');
    const client = createConnection({ path: join(directory, 'sock'), allowHalfOpen: true });
    const [socket] = (await once(server, 'connection')) as [Socket];
    const { fd } = handleOf(socket);
    client.write('some bytes');
    expect(hasHungUp(fd)).to.be.false;
    await until(() => withNews([fd])[0], { what: 'the bytes' });
    expect(withNews([-1, fd, handleOf(client).fd])).to.deep.equal([false, true, false]);
    client.end();
    await until(() => hasHungUp(fd), { what: 'the half that is closed' });
    expect(isGone(fd)).to.be.false;
    client.destroy();
    await until(() => isGone(fd), { what: 'the end' });
    expect(hasHungUp(fd)).to.be.true;
    socket.destroy();
    server.close();
  });
});
