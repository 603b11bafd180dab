import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { SocketStream } from '../../lib/transport/socket-stream.js';
import { freshDirectory, until } from '../peers/waiting.js';

/** More than any socket takes at once. */
const much = randomBytes(4 * 1024 * 1024);

describe('a stream of a UNIX socket', () => {
  let directory: string;
  let server: Server;
  let peer: Socket;
  let stream: SocketStream;
  let drains: number;

  before(async () => {
    directory = await freshDirectory();
  });
  after(() => rm(directory, { recursive: true }));

  beforeEach(async () => {
    const path = join(directory, 'sock');
    server = createServer({ pauseOnConnect: true });
    server.listen(path);
    await once(server, 'listening');
    const arrival = once(server, 'connection') as Promise<[Socket]>;
    stream = await SocketStream.connect(path, new AbortController().signal);
    [peer] = await arrival;
    drains = 0;
    stream.listen({
      bytes: () => undefined,
      drained: () => drains++,
      closed: () => undefined,
    });
  });
  afterEach(() => {
    stream.destroy();
    peer.destroy();
    server.close();
  });

  it('is not full while the kernel takes all', () => {
    stream.write(Buffer.from('a few bytes'));
    expect(stream.isFull).to.be.false;
    expect(stream.queuedBytes).to.equal(0);
  });

  it('takes a frame of a volume whole, once one did not fit', async () => {
    stream.write(much);
    peer.resume();
    await until(() => !stream.isFull, { what: 'room' });
    await until(() => peer.bytesRead === much.length, { what: 'all of it' });
    peer.pause();
    stream.write(much, 0, 256 * 1024 + 28);
    expect(stream.isFull).to.be.false;
  });

  // Whoever stops reading because a stream is full waits to be told, also of a single byte.
  for (const beyond of [1, 1000, 100_000]) {
    it(`tells of room again after ${beyond} bytes had to wait`, async () => {
      stream.write(much);
      expect(stream.isFull).to.be.true;
      const room = much.length - stream.queuedBytes;
      const got: Buffer[] = [];
      peer.on('data', (bytes: Buffer) => got.push(bytes)).resume();
      await until(() => drains === 1, { what: 'to be told' });
      await until(() => peer.bytesRead === much.length, { what: 'all of it' });
      expect(Buffer.concat(got).equals(much)).to.be.true;
      peer.pause();
      stream.write(much, 0, room);
      while (!stream.isFull) stream.write(much, 0, beyond);
      peer.resume();
      await until(() => drains === 2 && !stream.isFull, { what: 'to be told again' });
    });
  }
});
