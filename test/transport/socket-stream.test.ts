import { once } from 'node:events';
import { createConnection, createServer, Socket, type AddressInfo } from 'node:net';
import { constants } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import type { StreamListener } from '../../lib/transport/byte-stream.js';
import type { SocketHandle } from '../../lib/transport/node-socket.js';
import { SocketStream } from '../../lib/transport/socket-stream.js';
import { socketPair } from '../native/sockets.js';
import { until } from '../peers/waiting.js';

/** Keeps what a stream tells. */
class Recorder implements StreamListener {
  text = '';
  length = 0;
  drains = 0;
  readonly ends: (Error | null)[] = [];
  onBytes: () => void = () => undefined;

  bytes(buffer: Buffer, length: number): void {
    if (this.length < 1000) this.text += buffer.toString('latin1', 0, length);
    this.length += length;
    this.onBytes();
  }

  drained(): void {
    this.drains++;
  }

  closed(error: Error | null): void {
    this.ends.push(error);
  }
}

describe('transport/socket-stream', () => {
  let stream: SocketStream;
  let recorder: Recorder;
  let far: Socket;

  beforeEach(() => {
    const [one, other] = socketPair();
    stream = SocketStream.opened(one);
    far = new Socket({ fd: other, allowHalfOpen: true });
    far.on('error', () => undefined);
    recorder = new Recorder();
    stream.listen(recorder);
  });
  afterEach(() => {
    stream.destroy();
    far.destroy();
  });

  const taken = async (length: number): Promise<string> => {
    let text = '';
    far.setEncoding('latin1');
    far.on('data', (part: string) => (text += part));
    await until(() => text.length >= length, { what: `${length} bytes` });
    return text;
  };
  const comes = async (text: string): Promise<void> => {
    await until(() => recorder.text === text, { what: text });
  };

  it('gives its listener what comes, while it is not paused', async () => {
    far.write('one');
    await comes('one');
    stream.pause();
    far.write('two');
    await nextTurn();
    await nextTurn();
    expect(recorder.text).to.equal('one');
    stream.resume();
    await comes('onetwo');
  });

  it('can be paused and closed by whoever is being told', async () => {
    recorder.onBytes = () => stream.pause();
    far.write('one');
    await comes('one');
    recorder.onBytes = () => stream.destroy();
    stream.resume();
    far.write('two');
    await comes('onetwo');
    await nextTurn();
    expect(recorder.ends).to.deep.equal([]);
  });

  it('tells of the end behind the last bytes, once, and is closed', async () => {
    far.end('last');
    await until(() => recorder.ends.length > 0, { what: 'the end' });
    expect([recorder.text, recorder.ends, stream.isLeft]).to.deep.equal(['last', [null], true]);
    far.resume();
    await until(() => far.readableEnded, { what: 'the end at the other side' });
    stream.write(Buffer.from('too late'));
    expect(stream.queuedBytes).to.equal(0);
  });

  it('keeps what the kernel does not take, in order, and says when it has', async () => {
    const sizes = [1, 3_000_000, 5, 70_000, ...Array.from({ length: 1000 }, () => 100)];
    const bytes = sizes.map((size, index) => Buffer.alloc(size, 65 + (index % 26)));
    const all = Buffer.concat(bytes);
    for (const each of bytes) stream.write(each);
    expect(stream.queuedBytes).to.be.within(1, all.length - 1);
    expect((await taken(all.length)) === all.toString('latin1')).to.equal(true);
    await until(() => recorder.drains > 0, { what: 'the queue to be with the kernel' });
    expect([recorder.drains, stream.queuedBytes]).to.deep.equal([1, 0]);
  });

  it('copies what waits', async () => {
    const much = Buffer.alloc(3_000_000, 'a');
    stream.write(much);
    much.fill('b');
    expect(await taken(much.length)).to.match(/^a+$/);
  });

  it('ends when all that waits has gone, and drops what still comes', async () => {
    const much = Buffer.alloc(3_000_000, 'a');
    stream.write(much);
    stream.end();
    stream.write(Buffer.from('b'));
    far.write('too late');
    far.on('end', () => far.end());
    expect(await taken(much.length)).to.have.lengthOf(much.length);
    await until(() => far.readableEnded, { what: 'the end' });
    expect([recorder.text, recorder.ends]).to.deep.equal(['', []]);
  });

  it('waits for the end no longer than two seconds', async () => {
    stream.write(Buffer.alloc(3_000_000));
    stream.end();
    const since = performance.now();
    await until(() => stream.isLeft, { what: 'the end' });
    expect(performance.now() - since).to.be.within(1900, 4000);
  });

  for (const [what, waits] of [
    ['with bytes that wait', 3_000_000],
    ['without', 0],
  ] as const) {
    it(`is closed by a peer that goes ${what}, paused or not`, async () => {
      if (waits > 0) stream.pause();
      stream.write(Buffer.alloc(waits + 1));
      far.destroy();
      await until(() => recorder.ends.length > 0, { what: 'the end' });
      const [error] = recorder.ends;
      // Bytes that the peer has not read make the kernel say so.
      expect(error).to.have.property('code').that.is.oneOf(['EPIPE', 'ECONNRESET']);
      expect(error).to.have.property('errno').that.is.below(0);
      expect([recorder.ends.length, stream.queuedBytes]).to.deep.equal([1, 0]);
    });
  }

  it('serves many sockets beside each other', async () => {
    const several = Array.from({ length: 300 }, () => {
      const [one, other] = socketPair();
      const each = { stream: SocketStream.opened(one), recorder: new Recorder() };
      each.stream.listen(each.recorder);
      return { ...each, far: new Socket({ fd: other }) };
    });
    several.forEach((each, index) => each.far.write(`to ${index}`));
    const gone = several.filter((_, index) => index % 3 === 0);
    await until(() => several.every(({ recorder: { length } }) => length > 0), { what: 'them' });
    expect(several.map(({ recorder: { text } }) => text)).to.deep.equal(
      several.map((_, index) => `to ${index}`),
    );
    for (const each of gone) each.stream.destroy();
    for (const each of several) each.far.destroy();
    await until(
      () => several.every((each) => each.recorder.ends.length === 1 || each.stream.isLeft),
      {
        what: 'the end of all',
      },
    );
    expect(gone.flatMap((each) => each.recorder.ends)).to.deep.equal([]);
  });

  it('is made of a TCP connection, which passes no descriptors', async () => {
    const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = createConnection((server.address() as AddressInfo).port, '127.0.0.1');
    const [socket] = (await once(server, 'connection')) as [Socket];
    const handle = (socket as unknown as { readonly _handle: SocketHandle })._handle;
    const accepted = SocketStream.accepted(handle);
    expect(accepted.passage).to.equal(null);
    accepted.listen(recorder);
    client.write('hello');
    await comes('hello');
    client.resetAndDestroy();
    await until(() => recorder.ends.length > 0, { what: 'the reset' });
    expect(recorder.ends[0]).to.deep.include({
      message: 'read ECONNRESET',
      code: 'ECONNRESET',
      errno: -constants.errno.ECONNRESET,
      syscall: 'read',
    });
    server.close();
  });

  it('has the system’s error where nobody listens', () => {
    expect(() => SocketStream.connect('/nowhere/at/all'))
      .to.throw('connect ENOENT /nowhere/at/all')
      .that.deep.includes({ code: 'ENOENT', errno: -constants.errno.ENOENT, syscall: 'connect' });
  });
});
