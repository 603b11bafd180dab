import { closeSync, openSync, readdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { receive, sendWithDescriptors } from '../../lib/native/descriptor-passing.js';
import type { StreamListener } from '../../lib/transport/byte-stream.js';
import type { DescriptorPassage } from '../../lib/transport/descriptor-passage.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import { SocketStream } from '../../lib/transport/socket-stream.js';
import { freshDirectory, until } from '../peers/waiting.js';

const openCount = (): number => readdirSync('/proc/self/fd').length;

/** Keeps what a stream tells; closes no descriptor. */
class Recorder implements StreamListener {
  readonly plain: Buffer[] = [];
  readonly exact: { readonly bytes: Buffer; readonly descriptors: number[] }[] = [];
  readonly ends: (Error | null)[] = [];
  drains = 0;

  bytes(buffer: Buffer, length: number): void {
    this.plain.push(Buffer.from(buffer.subarray(0, length)));
  }

  received(bytes: Buffer, descriptors: number[]): void {
    this.exact.push({ bytes: Buffer.from(bytes), descriptors });
  }

  drained(): void {
    this.drains++;
  }

  closed(error: Error | null): void {
    this.ends.push(error);
  }

  get exactText(): string {
    return this.exact.map(({ bytes }) => bytes.toString()).join('');
  }
}

describe('transport/descriptor-passage', () => {
  let server: Server;
  let path: string;
  let stream: SocketStream;
  let passage: DescriptorPassage;
  let far: Socket;
  let recorder: Recorder;
  let openBefore: number;

  before(async () => {
    path = join(await freshDirectory(), 'socket');
    server = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(path);
    await once(server, 'listening');
  });
  after(async () => {
    server.close();
    await once(server, 'close');
  });
  beforeEach(async () => {
    const accepted = once(server, 'connection');
    stream = SocketStream.connect(path);
    [far] = (await accepted) as [Socket];
    far.on('error', () => undefined);
    recorder = new Recorder();
    stream.listen(recorder);
    passage = stream.passage!;
    // koffi and node open some of their own at first use.
    openBefore = openCount();
  });
  afterEach(async () => {
    stream.destroy();
    far.destroy();
    await until(() => openCount() <= openBefore, { what: 'every descriptor to be closed' });
  });

  const farFd = (): number => handleOf(far).fd;
  const sendFar = (text: string, descriptors: number[] = []): void => {
    expect(sendWithDescriptors(farFd(), Buffer.from(text), descriptors)).to.equal(text.length);
  };
  /** Descriptors of /dev/null. */
  const opened = (count: number): number[] =>
    Array.from({ length: count }, () => openSync('/dev/null', 'r'));
  /**
   * What has arrived at the far end, as text with an `@` for each byte that carries a descriptor.
   */
  const readFar = (limit = Infinity): string => {
    let text = '';
    const buffer = Buffer.alloc(64 * 1024);
    while (text.length < limit) {
      const received = receive(farFd(), buffer, 0, buffer.length);
      if (received === 'would-block' || received.bytes === 0) break;
      const end = received.bytes - received.descriptors.length;
      text += buffer.toString('latin1', 0, end) + '@'.repeat(received.descriptors.length);
      for (const descriptor of received.descriptors) closeSync(descriptor);
    }
    return text;
  };

  describe('receiving', () => {
    it('reads on without losing a descriptor, with what already waits in the socket', async () => {
      sendFar('plain');
      await until(() => recorder.plain.length > 0, { what: 'bytes' });
      const [descriptor] = opened(1);
      sendFar('waiting');
      sendFar('\0', [descriptor!]);
      sendFar('behind');
      passage.receive(recorder);
      await until(() => recorder.exactText.endsWith('behind'), { what: 'all bytes' });
      expect(recorder.exactText).to.equal('waiting\0behind');
      expect(recorder.exact[0]?.descriptors).to.have.length(1);
      expect(recorder.exact[0]?.bytes.toString()).to.equal('waiting\0');
      expect(Buffer.concat(recorder.plain).toString()).to.equal('plain');
      for (const each of [descriptor!, ...recorder.exact[0]!.descriptors]) closeSync(each);
    });

    it('stops while it is paused', async () => {
      passage.receive(recorder);
      stream.pause();
      sendFar('one');
      await new Promise((resolve) => setImmediate(resolve));
      expect(recorder.exact).to.deep.equal([]);
      stream.resume();
      await until(() => recorder.exactText === 'one', { what: 'bytes' });
      stream.pause();
      sendFar('two');
      await new Promise((resolve) => setImmediate(resolve));
      stream.resume();
      await until(() => recorder.exactText === 'onetwo', { what: 'more bytes' });
    });

    it('tells of the end behind the last bytes', async () => {
      passage.receive(recorder);
      sendFar('last');
      far.end();
      await until(() => recorder.ends.length > 0, { what: 'the end' });
      expect(recorder.exactText).to.equal('last');
      expect(recorder.ends).to.deep.equal([null]);
    });

    it('tells of an error as before', async () => {
      passage.receive(recorder);
      stream.write(Buffer.from('never read'));
      far.destroy();
      await until(() => recorder.ends.length > 0, { what: 'the end' });
      expect(recorder.ends).to.have.length(1);
      expect(recorder.ends[0]).to.include({ code: 'ECONNRESET', errno: -104, syscall: 'read' });
    });

    it('does not go on after the stream was destroyed', async () => {
      passage.receive(recorder);
      sendFar('late');
      stream.destroy();
      await new Promise((resolve) => far.resume().once('close', resolve));
      expect(recorder.exact).to.deep.equal([]);
    });
  });

  describe('sending', () => {
    it('keeps bytes and descriptors in order, one byte for each, and closes them', () => {
      stream.write(Buffer.from('one'));
      passage.send(opened(3));
      stream.write(Buffer.from('two'));
      passage.send(opened(1));
      expect(openCount()).to.equal(openBefore);
      expect(readFar()).to.equal('one@@@two@');
    });

    it('waits for room in the socket, and nothing overtakes', async () => {
      const much = Buffer.alloc(2 * 1024 * 1024, 'x');
      stream.write(much);
      passage.send(opened(2));
      stream.write(Buffer.from('behind'));
      passage.send(opened(1));
      expect(stream.queuedBytes).to.be.greaterThan(3 * 4096);
      expect(openCount()).to.equal(openBefore + 3);
      const drains = recorder.drains;
      let text = '';
      await until(() => (text += readFar(4 * 65_536)).endsWith('behind@'), { what: 'all of it' });
      expect(text.length).to.equal(much.length + 'behind'.length + 3);
      expect(text.slice(much.length)).to.equal('@@behind@');
      await until(() => recorder.drains > drains, { what: 'to be told of the room' });
      expect(stream.queuedBytes).to.equal(0);
      stream.write(Buffer.from('direct'));
      expect(readFar()).to.equal('direct');
    });

    it('ends behind what waits', async () => {
      stream.write(Buffer.alloc(1024 * 1024, 'x'));
      passage.send(opened(1));
      stream.write(Buffer.from('last'));
      stream.end();
      let text = '';
      await until(() => (text += readFar()).endsWith('@last'), { what: 'the last bytes' });
      const buffer = Buffer.alloc(1);
      await until(() => receive(farFd(), buffer, 0, 1) !== 'would-block', { what: 'the end' });
    });

    for (const [what, leave] of [
      ['the stream is destroyed', () => stream.destroy()],
      ['the other end leaves', () => far.destroy()],
    ] as const) {
      it(`closes what waits when ${what}`, async () => {
        stream.write(Buffer.alloc(1024 * 1024, 'x'));
        passage.send(opened(5));
        stream.write(Buffer.from('behind'));
        leave();
        await until(() => openCount() < openBefore, { what: 'descriptors to be closed' });
        // And what comes afterwards.
        passage.send(opened(2));
        await until(() => openCount() < openBefore, { what: 'late descriptors to be closed' });
      });
    }
  });
});
