import { closeSync } from 'node:fs';
import { expect } from 'chai';
import { raiseSendBuffer } from '../../lib/native/send-buffer.js';
import { sendNow } from '../../lib/native/stream-socket.js';
import { socketPair } from './sockets.js';

describe('native/send-buffer', () => {
  let pairs: [number, number][];

  beforeEach(() => {
    pairs = [];
  });
  afterEach(() => pairs.flat().forEach((fd) => closeSync(fd)));

  /** Bytes that a new socket takes after its buffer was raised to each of `sizes`. */
  const taken = (...sizes: number[]): number => {
    const pair = socketPair();
    pairs.push(pair);
    for (const size of sizes) raiseSendBuffer(pair[0], size);
    const much = Buffer.alloc(8 * 1024 * 1024);
    return sendNow(pair[0], much, 0, much.length);
  };

  it('has a socket take more', () => {
    expect(taken(320 * 1024)).to.be.above(taken() + 64 * 1024);
  });

  it('never has it take less', () => {
    expect(taken(4096)).to.equal(taken());
    expect(taken(320 * 1024, 4096)).to.equal(taken(320 * 1024));
  });

  it('leaves what is no socket as it is', () => {
    raiseSendBuffer(-1, 4096);
    raiseSendBuffer(0, 4096);
    expect(taken()).to.be.above(0);
  });
});
