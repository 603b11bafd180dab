import { expect } from 'chai';
import { headerLength, maxFrameLength, maxFrameLengthBeforeLogin } from '../../lib/rpc/frame.js';
import { collectLimit, Framer, FrameLengthError } from '../../lib/rpc/framer.js';
import { download, errors, events, oddLength, session, upload } from './fixtures.js';
import { chunksOf, expectFrames, frameOf, seededRandom } from './frames.js';
import { RecordingSink } from './recording-sink.js';

const peerFrames = [session, events, upload, download, oddLength, errors].flatMap((group) =>
  Object.values(group),
);
const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** Gives all chunks to a new framer and expects exactly `frames` to come out. */
function expectCut(chunks: Iterable<Buffer>, frames: readonly Buffer[], hint: string): void {
  const sink = new RecordingSink();
  const framer = new Framer(sink);
  for (const chunk of chunks) framer.push(chunk);
  expectFrames(sink.frames, frames);
  expect(framer.midFrame, hint).to.be.false;
}

function expectLengthError(action: () => void, length: number, limit: number): void {
  expect(action)
    .to.throw(FrameLengthError, `${length} bytes`)
    .that.includes({ code: 'FRAME_LENGTH', length, limit });
}

describe('Framer', () => {
  describe('cuts the same frames out of every chunking', () => {
    it('of a real session in two, at every byte', () => {
      const stream = Buffer.concat(peerFrames);
      for (let at = 0; at <= stream.length; at++) {
        expectCut([stream.subarray(0, at), stream.subarray(at)], peerFrames, `split at ${at}`);
      }
    });

    it('of a real session in chunks of 1 to 80 bytes', () => {
      for (let size = 1; size <= 80; size++) {
        expectCut(
          chunksOf(Buffer.concat(peerFrames), () => size),
          peerFrames,
          `size ${size}`,
        );
      }
    });

    const lengths = [28, 29, 50, 31, 1500, collectLimit, 28, collectLimit + 1, 28, 300_000, 30];
    const frames = lengths.map((length, at) => frameOf(length, at));
    const stream = Buffer.concat(frames);

    it('of small and large frames in chunks of any size', () => {
      for (let seed = 1; seed <= 24; seed++) {
        const random = seededRandom(seed);
        const size = (): number => Math.ceil(2 ** (random() * 17));
        expectCut(chunksOf(stream, size), frames, `seed ${seed}`);
      }
    });

    it('of small and large frames in two, around every boundary', () => {
      let boundary = 0;
      for (const length of lengths) {
        for (const off of [-1, 0, 1, 3, 4, 5, 27, 28, 29]) {
          const at = Math.max(0, boundary + off);
          expectCut([stream.subarray(0, at), stream.subarray(at)], frames, `split at ${at}`);
        }
        boundary += length;
      }
    });

    it('of frames of 256 KiB and one byte more, byte by byte', () => {
      const pair = [frameOf(collectLimit, 1), frameOf(collectLimit + 1, 2)];
      expectCut(
        chunksOf(Buffer.concat(pair), () => 1),
        pair,
        'byte by byte',
      );
    });
  });

  it('hands out frames that lie whole in a chunk where they are', () => {
    const chunk = Buffer.concat(peerFrames);
    const places: [boolean, number, number][] = [];
    const framer = new Framer({
      frame: (bytes, start, length) => places.push([bytes === chunk, start, length]),
      largeFrame: () => true,
      largeBytes: () => undefined,
    });
    framer.push(chunk);
    let start = 0;
    expect(places).to.eql(
      peerFrames.map(({ length }) => [true, (start += length) - length, length]),
    );
  });

  it('uses the rest of a chunk in place after the frame it completes', () => {
    const [first, second] = [session.openCall, session.getUriCall];
    const chunk = Buffer.concat([first.subarray(10), second]);
    const inPlace: boolean[] = [];
    const framer = new Framer({
      frame: (bytes) => inPlace.push(bytes === chunk),
      largeFrame: () => true,
      largeBytes: () => undefined,
    });
    framer.push(first.subarray(0, 10));
    framer.push(chunk);
    expect(inPlace).to.eql([false, true]);
  });

  it('tells whether it is inside a frame', () => {
    const framer = new Framer(new RecordingSink());
    const seen: [boolean, boolean][] = [];
    const push = (bytes: Buffer): void => {
      framer.push(bytes);
      seen.push([framer.midFrame, framer.midLargeFrame]);
    };
    const large = frameOf(collectLimit + 1);
    push(session.openCall.subarray(0, 1));
    push(session.openCall.subarray(1));
    push(large.subarray(0, headerLength - 1));
    push(large.subarray(headerLength - 1, headerLength));
    push(large.subarray(headerLength, -1));
    push(large.subarray(-1));
    expect(seen).to.eql([
      [true, false],
      [false, false],
      [true, false],
      [true, true],
      [true, true],
      [false, false],
    ]);
  });

  describe('refuses a length', () => {
    for (const length of [0, 3, 4, 24, 27, maxFrameLength + 1, 0x80000000, 0xffffffff]) {
      it(`of ${length} once its word is there, and is done then`, () => {
        for (let at = 0; at < 4; at++) {
          const sink = new RecordingSink();
          const framer = new Framer(sink);
          const bad = word(length);
          framer.push(Buffer.concat([session.openCall, bad.subarray(0, at)]));
          expectLengthError(() => framer.push(bad.subarray(at)), length, maxFrameLength);
          framer.push(session.openCall);
          expectFrames(sink.frames, [session.openCall]);
          expect(framer.midFrame).to.be.false;
        }
      });
    }

    it('after the frames before it in the same chunk were handed out', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      const chunk = Buffer.concat([session.openCall, session.getUriCall, word(27)]);
      expectLengthError(() => framer.push(chunk), 27, maxFrameLength);
      expectFrames(sink.frames, [session.openCall, session.getUriCall]);
    });

    it('above the limit in force, to the byte', () => {
      const limit = maxFrameLengthBeforeLogin;
      const sink = new RecordingSink();
      const framer = new Framer(sink, limit);
      framer.push(frameOf(limit));
      expect(sink.frames).to.have.length(1);
      expectLengthError(() => framer.push(word(limit + 1)), limit + 1, limit);
    });

    it('by the limit that the frame before it brought about', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink, 100);
      const record = sink.frame.bind(sink);
      sink.frame = (bytes, start, length) => {
        record(bytes, start, length);
        framer.limit = length === 28 ? 1000 : 100;
      };
      framer.push(Buffer.concat([frameOf(28), frameOf(1000)]));
      expect(sink.frames.map((frame) => frame.length)).to.eql([28, 1000]);
      expectLengthError(() => framer.push(frameOf(101)), 101, 100);
    });
  });

  describe('gives memory only for bytes that came', () => {
    /** Bytes of buffers that `action` leaves allocated. */
    const allocatedBy = (action: () => void): number => {
      const before = process.memoryUsage().arrayBuffers;
      action();
      return process.memoryUsage().arrayBuffers - before;
    };
    const peers = 200;

    for (const length of [maxFrameLength, collectLimit]) {
      it(`when ${peers} peers announce ${length} bytes and send 5`, () => {
        const start = Buffer.concat([word(length), Buffer.alloc(1)]);
        const framers = Array.from({ length: peers }, () => new Framer(new RecordingSink()));
        const allocated = allocatedBy(() => {
          for (const framer of framers) framer.push(start);
        });
        expect(framers.every(({ midFrame }) => midFrame)).to.be.true;
        expect(allocated).to.be.below(peers * 1024);
      });
    }

    it('when a frame of 256 KiB comes byte by byte', () => {
      const bytes = frameOf(collectLimit);
      const framers = Array.from({ length: peers }, () => new Framer(new RecordingSink()));
      const allocated = allocatedBy(() => {
        for (const framer of framers) {
          for (let at = 0; at < 1000; at++) framer.push(bytes.subarray(at, at + 1));
        }
      });
      expect(allocated).to.be.below(peers * 8 * 1024);
    });
  });

  it('never rewrites memory it has handed out, nor the memory it was given', () => {
    const handedOut: Buffer[] = [];
    const framer = new Framer({
      frame: (bytes, start, length) => handedOut.push(bytes.subarray(start, start + length)),
      largeFrame: () => true,
      largeBytes: () => undefined,
    });
    const random = seededRandom(7);
    const frames = Array.from({ length: 400 }, (_, at) =>
      frameOf(28 + Math.floor(random() * 300), at),
    );
    const stream = Buffer.concat(frames);
    const chunks = [...chunksOf(stream, () => Math.ceil(random() * 200))];
    for (const chunk of chunks) framer.push(chunk);
    expectFrames(handedOut, frames);
    expect(Buffer.concat(chunks).equals(stream)).to.be.true;
  });

  it('stops within a frame: no further one of the chunk, none later', () => {
    for (const split of [0, 1, 28, 30]) {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      const record = sink.frame.bind(sink);
      sink.frame = (bytes, start, length) => {
        record(bytes, start, length);
        framer.stop();
      };
      const stream = Buffer.concat([session.openCall, session.getUriCall, word(28)]);
      framer.push(stream.subarray(0, split));
      framer.push(stream.subarray(split));
      framer.push(session.getUriCall);
      framer.push(word(0));
      expectFrames(sink.frames, [session.openCall]);
      expect(framer.midFrame).to.be.false;
    }
  });

  it('stops between pushes and forgets what it held', () => {
    const sink = new RecordingSink();
    const framer = new Framer(sink);
    framer.push(session.openCall.subarray(0, 30));
    framer.stop();
    expect(framer.midFrame).to.be.false;
    framer.push(session.openCall.subarray(30));
    expect(sink.frames).to.be.empty;
  });
});
