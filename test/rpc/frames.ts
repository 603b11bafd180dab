import { expect } from 'chai';
import { encodeCall, headerLength } from '../../lib/rpc/frame.js';

/** Its length is a prime, so that bytes out of their order show. */
const pattern = Buffer.from(Array.from({ length: 251 }, (_, at) => at));

/** A call frame of `length` bytes; frames of different serials differ. */
export function frameOf(length: number, serial = 0): Buffer {
  return encodeCall(3, serial, Buffer.alloc(length - headerLength, pattern));
}

/** Compares without chai's diff, which takes minutes for megabytes. */
export function expectFrames(actual: readonly Buffer[], expected: readonly Buffer[]): void {
  expect(actual.map((frame) => frame.length)).to.eql(expected.map((frame) => frame.length));
  expected.forEach((frame, at) => {
    expect(actual[at]!.equals(frame), `frame ${at}`).to.be.true;
  });
}

/** Cuts `bytes` into chunks with memory of their own, each of the next size that `sizes` yields. */
export function* chunksOf(bytes: Buffer, size: () => number): Generator<Buffer> {
  for (let start = 0; start < bytes.length;) {
    const end = Math.min(bytes.length, start + size());
    yield Buffer.from(bytes.subarray(start, end));
    start = end;
  }
}

/** Numbers from 0 to 1 that are the same at every run. */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
