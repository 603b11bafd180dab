import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { expect } from 'chai';
import { lastErrno } from '../../lib/native/error.js';
import { receiveNow, sendNow } from '../../lib/native/stream-socket.js';
import { socketPair } from './sockets.js';

describe('native/stream-socket', () => {
  let near: number;
  let far: number;
  const bytes = Buffer.from('0123456789');

  beforeEach(() => {
    [near, far] = socketPair();
  });
  afterEach(() => [near, far].forEach((fd) => closeSync(fd)));

  const received = (): string => {
    const buffer = Buffer.alloc(64);
    return buffer.toString('latin1', 0, readSync(far, buffer));
  };

  for (const [start, end] of [
    [0, 10],
    [0, 3],
    [4, 10],
    [2, 3],
  ] as const) {
    it(`sends the bytes from ${start} to ${end}`, () => {
      expect(sendNow(near, bytes, start, end)).to.equal(end - start);
      expect(received()).to.equal('0123456789'.slice(start, end));
    });
  }

  it('sends of a view what lies in the view', () => {
    expect(sendNow(near, bytes.subarray(3), 1, 4)).to.equal(3);
    expect(received()).to.equal('456');
  });

  it('takes what fits, and nothing when the socket is full', () => {
    const much = Buffer.alloc(8 * 1024 * 1024);
    const taken = sendNow(near, much, 0, much.length);
    expect(taken).to.be.within(1, much.length - 1);
    for (let more = taken; more > 0;) more = sendNow(near, much, 0, 1);
    expect(sendNow(near, much, 0, 1)).to.equal(-1);
    expect(lastErrno()).to.equal(constants.errno.EAGAIN);
  });

  it('sends nothing when there is nobody, and raises no signal', () => {
    closeSync(far);
    expect(sendNow(near, bytes, 0, 10)).to.equal(-1);
    expect(lastErrno()).to.equal(constants.errno.EPIPE);
    far = openSync('/dev/null', 'r');
  });

  it('does nothing when there is no such socket', () => {
    expect(sendNow(-1, bytes, 0, 10)).to.equal(-1);
    expect(receiveNow(-1, Buffer.alloc(8))).to.equal(-1);
    expect(lastErrno()).to.equal(constants.errno.EBADF);
  });

  it('receives what has come, as much as there is room for', () => {
    const into = Buffer.alloc(6);
    writeSync(far, bytes);
    expect([receiveNow(near, into), into.toString()]).to.deep.equal([6, '012345']);
    expect([receiveNow(near, into), into.toString()]).to.deep.equal([4, '678945']);
  });

  it('receives nothing while nothing has come, and 0 at the end', () => {
    expect(receiveNow(near, Buffer.alloc(8))).to.equal(-1);
    expect(lastErrno()).to.equal(constants.errno.EAGAIN);
    closeSync(far);
    expect(receiveNow(near, Buffer.alloc(8))).to.equal(0);
    far = openSync('/dev/null', 'r');
  });
});
