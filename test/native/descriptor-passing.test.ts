import { closeSync, fstatSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import {
  maximumDescriptors,
  receive,
  sendWithDescriptors,
  type Received,
} from '../../lib/native/descriptor-passing.js';
import { NativeError } from '../../lib/native/error.js';
import { sealedMemoryFile } from '../../lib/native/descriptors.js';
import { socketPair } from './sockets.js';

describe('native/descriptor-passing', () => {
  let near: number;
  let far: number;
  let open: Set<number>;
  const buffer = Buffer.alloc(1024);

  const receiveSome = (): Received => {
    const received = receive(far, buffer, 0, buffer.length);
    if (received === 'would-block') throw new Error('nothing has arrived');
    for (const fd of received.descriptors) open.add(fd);
    return received;
  };

  beforeEach(() => {
    [near, far] = socketPair();
    open = new Set([near, far]);
  });
  afterEach(() => open.forEach((fd) => closeSync(fd)));

  it('passes bytes and descriptors, which close on exec', () => {
    const file = sealedMemoryFile('test', Buffer.from('through the socket'));
    open.add(file);
    expect(sendWithDescriptors(near, Buffer.from('hello'), [file, file])).to.equal(5);
    buffer.fill(0);
    const received = receive(far, buffer, 7, 100) as Received;
    received.descriptors.forEach((fd) => open.add(fd));
    expect(received.bytes).to.equal(5);
    expect(buffer.toString('latin1', 0, 13)).to.equal('\0\0\0\0\0\0\0hello\0');
    expect(received.descriptors).to.have.length(2);
    for (const fd of received.descriptors) {
      expect(fd).not.to.equal(file);
      const text = Buffer.alloc(18);
      readSync(fd, text, 0, 18, 0);
      expect(text.toString()).to.equal('through the socket');
      expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).to.match(/flags:\s*02/);
    }
  });

  it('respects the place of a view within its memory', () => {
    const pool = Buffer.from('0123456789');
    expect(sendWithDescriptors(near, pool.subarray(3, 6), [])).to.equal(3);
    const target = Buffer.alloc(10, '.');
    expect(receive(far, target.subarray(2, 9), 1, 3)).to.deep.equal({
      bytes: 3,
      descriptors: [],
      isTruncated: false,
    });
    expect(target.toString()).to.equal('...345....');
  });

  it('passes as many descriptors as the kernel allows, and no more', () => {
    const file = openSync('/dev/null', 'r');
    open.add(file);
    const many = Array.from({ length: maximumDescriptors }, () => file);
    expect(sendWithDescriptors(near, Buffer.from('x'), many)).to.equal(1);
    const { descriptors } = receiveSome();
    expect(new Set(descriptors).size).to.equal(maximumDescriptors);
    expect(fstatSync(descriptors.at(-1)!).rdev).to.equal(fstatSync(file).rdev);
    expect(() => sendWithDescriptors(near, Buffer.from('x'), [...many, file])).to.throw(RangeError);
  });

  it('tells nothing yet, end of stream and a dead peer apart', () => {
    expect(receive(far, buffer, 0, 10)).to.equal('would-block');
    writeSync(near, 'x');
    expect(receiveSome()).to.deep.equal({ bytes: 1, descriptors: [], isTruncated: false });
    closeSync(near);
    open.delete(near);
    expect(receiveSome()).to.deep.equal({ bytes: 0, descriptors: [], isTruncated: false });
    expect(() => sendWithDescriptors(far, Buffer.from('x'), []))
      .to.throw(NativeError)
      .with.property('code', 'EPIPE');
  });

  it('says would-block when the peer does not read, and loses nothing', () => {
    const chunk = Buffer.alloc(65536, 1);
    let sent = 0;
    for (;;) {
      const taken = sendWithDescriptors(near, chunk, []);
      if (taken === 'would-block') break;
      sent += taken;
    }
    expect(sent).to.be.above(65536);
    let read = 0;
    for (;;) {
      const received = receive(far, chunk, 0, chunk.length);
      if (received === 'would-block') break;
      read += received.bytes;
    }
    expect(read).to.equal(sent);
  });

  it('refuses places outside the buffer', () => {
    for (const [offset, length] of [
      [0, 1025],
      [1020, 5],
      [-1, 5],
      [0, 0],
    ] as const) {
      expect(() => receive(far, buffer, offset, length)).to.throw(RangeError);
    }
    expect(() => sendWithDescriptors(near, Buffer.alloc(0), [])).to.throw(RangeError);
  });

  it('names errno and descriptor of a refusal', () => {
    const file = openSync('/dev/null', 'r');
    open.add(file);
    expect(() => receive(file, buffer, 0, 10))
      .to.throw(NativeError, `descriptor ${file}`)
      .with.property('code', 'ENOTSOCK');
    expect(() => sendWithDescriptors(near, Buffer.from('x'), [9999]))
      .to.throw(NativeError)
      .with.property('code', 'EBADF');
    expect(sendWithDescriptors(near, Buffer.from('x'), []), 'afterwards').to.equal(1);
    expect(receiveSome().descriptors).to.be.empty;
  });
});
