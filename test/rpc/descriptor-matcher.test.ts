import { expect } from 'chai';
import { DescriptorError, DescriptorMatcher } from '../../lib/rpc/descriptor-matcher.js';
import { encodeFrame, headerLength, messageType, program, status } from '../../lib/rpc/frame.js';
import { expectFrames, frameOf } from './frames.js';

/** A frame with as many bytes behind its count of descriptors as `extra` says. */
function withDescriptors(count: number, extra = 8, type: number = messageType.callWithFds): Buffer {
  const payload = Buffer.alloc(4 + extra, 0xaa);
  payload.writeUInt32BE(count);
  const header = { program: program.remote, procedure: 249, serial: 5, status: status.ok };
  return encodeFrame({ ...header, type }, payload);
}

/**
 * What came out of a matcher: bytes as one buffer, and how many of them had come before each
 * frame's descriptors.
 */
class Recorder {
  readonly parts: Buffer[] = [];
  readonly given: { readonly at: number; readonly descriptors: number[] }[] = [];
  readonly matcher = new DescriptorMatcher(messageType.callWithFds, {
    bytes: (bytes) => this.parts.push(Buffer.from(bytes)),
    descriptors: (descriptors) => this.given.push({ at: this.all.length, descriptors }),
  });

  get all(): Buffer {
    return Buffer.concat(this.parts);
  }
}

/** Bytes as they are sent: a number stands for the byte 0 with that descriptor. */
type Sent = readonly (Buffer | number)[];

/**
 * Gives a matcher at most `size` bytes at once, as the kernel does: a descriptor's byte ends a
 * read.
 */
function feed(matcher: DescriptorMatcher, sent: Sent, size: number): void {
  let pending = Buffer.alloc(0);
  const flush = (descriptors: number[]): void => {
    for (let start = 0; start < pending.length; start += size) {
      const end = Math.min(pending.length, start + size);
      const isLast = end === pending.length;
      matcher.push(Buffer.from(pending.subarray(start, end)), isLast ? descriptors : []);
    }
    pending = Buffer.alloc(0);
  };
  for (const item of sent) {
    pending = Buffer.concat([pending, typeof item === 'number' ? Buffer.alloc(1) : item]);
    if (typeof item === 'number') flush([item]);
  }
  flush([]);
}

const plain = frameOf(100, 7);
const large = frameOf(300_000, 8);

describe('DescriptorMatcher', () => {
  const frames = [
    plain,
    withDescriptors(2),
    withDescriptors(0),
    withDescriptors(1, 0),
    withDescriptors(1, 300_000),
    large,
    withDescriptors(32, 3),
    // Only one type has descriptors: what this one announces is nobody's business.
    withDescriptors(3, 8, messageType.replyWithFds),
    frameOf(headerLength),
  ];
  const numbers = [[11, 12], [], [21], [31], Array.from({ length: 32 }, (_, at) => 100 + at)];
  const sent = (): Sent => {
    const descriptors = [...numbers];
    return frames.flatMap((frame) => [
      frame,
      ...(frame.readUInt32BE(16) === messageType.callWithFds ? (descriptors.shift() ?? []) : []),
    ]);
  };

  for (const size of [1, 2, 3, 19, 20, 21, 28, 32, 33, 4096, 65_536, 1_000_000]) {
    it(`tells descriptors from frames that come in reads of ${size} bytes`, () => {
      const recorder = new Recorder();
      feed(recorder.matcher, sent(), size);
      expectFrames([recorder.all], [Buffer.concat(frames)]);
      expect(recorder.given.map(({ descriptors }) => descriptors)).to.deep.equal(numbers);
    });
  }

  it('gives a frame’s descriptors before its last byte, and not the byte before they are all there', () => {
    const recorder = new Recorder();
    const frame = withDescriptors(2);
    recorder.matcher.push(frame, []);
    expect(recorder.all).to.have.length(frame.length - 1);
    recorder.matcher.push(Buffer.alloc(1), [11]);
    expect(recorder.all).to.have.length(frame.length - 1);
    recorder.matcher.push(Buffer.alloc(1), [12]);
    expect(recorder.given).to.deep.equal([{ at: frame.length - 1, descriptors: [11, 12] }]);
    expectFrames([recorder.all], [frame]);
  });

  it('passes on a read without descriptors in the memory it came in', () => {
    const seen: Buffer[] = [];
    const matcher = new DescriptorMatcher(messageType.callWithFds, {
      bytes: (bytes) => seen.push(bytes),
      descriptors: () => undefined,
    });
    matcher.push(large, []);
    expect(seen[0]).to.equal(large);
  });

  it('leaves a length that no frame has to whoever cuts the frames', () => {
    const recorder = new Recorder();
    const bytes = Buffer.concat([plain, Buffer.alloc(40, 0xff), withDescriptors(1)]);
    recorder.matcher.push(bytes, []);
    expectFrames([recorder.all], [bytes]);
  });

  describe('begins in the midst of a stream', () => {
    for (const held of [0, 1, 19, 20, 31, 32, 35]) {
      it(`with ${held} bytes of a frame that has descriptors`, () => {
        const recorder = new Recorder();
        const frame = withDescriptors(1);
        recorder.matcher.follow(Buffer.concat([plain, frame.subarray(0, held)]), 0);
        feed(recorder.matcher, [frame.subarray(held), 9, plain], 7);
        expectFrames([recorder.all], [Buffer.concat([frame.subarray(held), plain])]);
        expect(recorder.given.map(({ descriptors }) => descriptors)).to.deep.equal([[9]]);
      });
    }

    it('with a large frame of which some is still to come', () => {
      const recorder = new Recorder();
      recorder.matcher.follow(Buffer.alloc(0), 1000);
      feed(recorder.matcher, [large.subarray(-1000), withDescriptors(1), 9], 65_536);
      expect(recorder.given.map(({ descriptors }) => descriptors)).to.deep.equal([[9]]);
    });

    it('but not behind a frame whose descriptors may have been lost', () => {
      const { matcher } = new Recorder();
      expect(() => matcher.follow(withDescriptors(1), 0)).to.throw(DescriptorError, /expected/);
    });
  });

  const malformed: readonly (readonly [string, Sent, RegExp])[] = [
    ['a count of 33', [withDescriptors(33)], /33 descriptors, allowed are up to 32/],
    ['a count of 4294967295', [withDescriptors(0xffffffff)], /4294967295 descriptors/],
    ['a frame too short for a count', [withDescriptors(1).fill(31, 3, 4)], /too short/],
    ['a frame without a payload', [withDescriptors(1).fill(28, 3, 4)], /too short/],
    ['a byte without its descriptor', [withDescriptors(1), plain], /0 descriptors with a byte/],
    ['too few descriptors', [withDescriptors(2), 11, plain], /0 descriptors with a byte/],
    ['one too many', [withDescriptors(1), 11, 12], /belongs to none/],
    ['one where none is announced', [withDescriptors(0), 11], /belongs to none/],
    ['one behind a frame of another type', [plain, 11], /belongs to none/],
    [
      'one behind a frame of the other direction',
      [withDescriptors(1, 8, messageType.replyWithFds), 11],
      /belongs to none/,
    ],
    ['one before any frame', [11], /belongs to none/],
  ];
  for (const [what, items, message] of malformed) {
    it(`refuses ${what}`, () => {
      for (const size of [1, 30, 1000]) {
        expect(() => feed(new Recorder().matcher, items, size)).to.throw(DescriptorError, message);
      }
    });
  }

  it('refuses two descriptors with one byte, and leaves them and those before to the caller', () => {
    const { matcher, given } = new Recorder();
    matcher.push(withDescriptors(2), []);
    matcher.push(Buffer.alloc(1), [11]);
    const descriptors = [12, 13];
    expect(() => matcher.push(Buffer.alloc(1), descriptors)).to.throw(DescriptorError, /2 desc/);
    expect(descriptors).to.deep.equal([12, 13]);
    expect(matcher.takeCollected()).to.deep.equal([11]);
    expect(matcher.takeCollected()).to.deep.equal([]);
    expect(given).to.deep.equal([]);
  });

  it('empties the list of the descriptors it has taken', () => {
    const { matcher } = new Recorder();
    const descriptors = [11];
    matcher.push(Buffer.concat([withDescriptors(2), Buffer.alloc(1)]), descriptors);
    expect(descriptors).to.deep.equal([]);
  });
});
