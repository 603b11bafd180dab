import { expect } from 'chai';
import { headerLength, maxFrameLength } from '../../lib/rpc/frame.js';
import { collectLimit, Framer, FrameLengthError } from '../../lib/rpc/framer.js';
import { session } from './fixtures.js';
import { chunksOf, expectFrames, frameOf } from './frames.js';
import { RecordingSink } from './recording-sink.js';

const large = frameOf(collectLimit + 1, 9);

describe('Framer, large frames', () => {
  it('collects 256 KiB and passes on one byte more', () => {
    const sink = new RecordingSink();
    const framer = new Framer(sink);
    framer.push(frameOf(collectLimit));
    expect(sink.asked).to.eql([]);
    framer.push(large);
    expect(sink.asked).to.eql([collectLimit + 1]);
  });

  it('passes the longest frame on as it arrives, in the memory it arrived in', () => {
    const longest = frameOf(maxFrameLength, 1);
    const chunkSize = 65_536;
    for (const first of [1, 4, headerLength - 1, headerLength, headerLength + 1, chunkSize]) {
      let passed = 0;
      let copied = 0;
      let lasts = 0;
      const framer = new Framer({
        frame: () => expect.fail('collected'),
        largeFrame: () => true,
        largeBytes: (bytes, start, end, last) => {
          if (bytes.buffer !== longest.buffer) copied += end - start;
          if (!bytes.subarray(start, end).equals(longest.subarray(passed, passed + end - start))) {
            expect.fail(`other bytes at ${passed}`);
          }
          passed += end - start;
          if (last) lasts++;
        },
      });
      let pushed = 0;
      while (pushed < longest.length) {
        const chunk = longest.subarray(pushed, pushed + (pushed === 0 ? first : chunkSize));
        framer.push(chunk);
        pushed += chunk.length;
        expect(passed).to.equal(pushed < headerLength ? 0 : pushed);
        expect(lasts).to.equal(pushed === longest.length ? 1 : 0);
      }
      expect(copied).to.equal(first < headerLength ? headerLength : 0);
    }
  });

  it('goes on in place with what follows a large frame in its last chunk', () => {
    const sink = new RecordingSink();
    const framer = new Framer(sink);
    framer.push(large.subarray(0, 100_000));
    framer.push(Buffer.concat([large.subarray(100_000), session.openCall, large]));
    expectFrames(sink.frames, [large, session.openCall, large]);
  });

  describe('suspended by its sink', () => {
    const frames = [session.openCall, large, session.getUriCall, frameOf(300_000, 4), frameOf(28)];
    const stream = Buffer.concat(frames);

    it('hands out nothing and keeps the rest of the chunk until it is resumed', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      sink.accepts = false;
      framer.push(Buffer.concat([session.openCall, large, session.getUriCall]));
      expect(framer.isSuspended).to.be.true;
      expect(framer.midLargeFrame).to.be.false;
      expectFrames(sink.frames, [session.openCall]);
      expect(sink.largeBytesSeen).to.equal(0);

      sink.accepts = true;
      framer.resume();
      expect(framer.isSuspended).to.be.false;
      expectFrames(sink.frames, [session.openCall, large, session.getUriCall]);
      expect(framer.midFrame).to.be.false;
    });

    it('is asked again by resume, and asks the sink again', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      sink.accepts = false;
      framer.push(large);
      framer.resume();
      framer.resume();
      expect(framer.isSuspended).to.be.true;
      expect(sink.asked).to.eql([large.length, large.length, large.length]);
      sink.accepts = true;
      framer.resume();
      framer.resume();
      expect(sink.asked).to.have.length(4);
      expectFrames(sink.frames, [large]);
    });

    it('keeps everything in order, wherever the chunks end', () => {
      const start = session.openCall.length;
      for (const off of [1, 3, 4, 5, 27, 28, 29, 60_000, large.length - 1, large.length]) {
        const sink = new RecordingSink();
        const framer = new Framer(sink);
        sink.accepts = false;
        framer.push(stream.subarray(0, start + off));
        expect(framer.isSuspended, `${off} bytes of it`).to.equal(off >= headerLength);
        framer.push(stream.subarray(start + off, start + off + 10));
        framer.push(stream.subarray(start + off + 10));
        expect(framer.isSuspended).to.be.true;
        expect(sink.largeBytesSeen).to.equal(0);
        sink.accepts = true;
        framer.resume();
        expectFrames(sink.frames, frames);
      }
    });

    it('before every large frame loses and repeats nothing, however late it is resumed', () => {
      for (const [chunkSize, resumeEvery] of [
        [1000, 1],
        [1000, 100],
        [10_007, 3],
        [65_536, 1],
        [65_536, 10],
        [stream.length, 1],
      ] as const) {
        const sink = new RecordingSink();
        const framer = new Framer(sink);
        sink.largeFrame = (_bytes, _start, length) => {
          sink.asked.push(length);
          return sink.asked.length % 2 === 0;
        };
        let pushes = 0;
        for (const chunk of chunksOf(stream, () => chunkSize)) {
          framer.push(chunk);
          if (++pushes % resumeEvery === 0) framer.resume();
        }
        while (framer.isSuspended) framer.resume();
        expectFrames(sink.frames, frames);
        expect(sink.asked).to.eql([large.length, large.length, 300_000, 300_000]);
      }
    });

    it('finds a bad length behind the large frame when it is resumed', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      sink.accepts = false;
      framer.push(Buffer.concat([large, Buffer.alloc(4)]));
      sink.accepts = true;
      expect(() => framer.resume()).to.throw(FrameLengthError);
      expectFrames(sink.frames, [large]);
    });
  });

  describe('stopped', () => {
    const stream = Buffer.concat([large, session.openCall]);

    /** Does all that could make the framer hand out something. */
    const run = (framer: Framer, split: number): void => {
      framer.push(stream.subarray(0, split));
      framer.push(stream.subarray(split));
      framer.resume();
      framer.push(session.openCall);
    };

    for (const accepts of [true, false]) {
      it(`while the sink ${accepts ? 'accepts' : 'refuses'} a large frame, passes none of it on`, () => {
        for (const split of [0, 10, headerLength, 1000]) {
          const sink = new RecordingSink();
          const framer = new Framer(sink);
          sink.largeFrame = (_bytes, _start, length) => {
            sink.asked.push(length);
            framer.stop();
            return accepts;
          };
          run(framer, split);
          expect(sink.asked).to.eql([large.length]);
          expect(sink.largeBytesSeen).to.equal(0);
          expect(sink.frames).to.be.empty;
          if (!accepts) expect(framer.midFrame, 'still holds bytes').to.be.false;
        }
      });
    }

    it('amid a large frame, passes no more of it on', () => {
      for (const split of [10, headerLength, 1000]) {
        const sink = new RecordingSink();
        const framer = new Framer(sink);
        const calls: number[] = [];
        sink.largeBytes = (_bytes, start, end) => {
          calls.push(end - start);
          framer.stop();
        };
        run(framer, split);
        expect(calls).to.eql([Math.max(split, headerLength)]);
        expect(sink.frames).to.be.empty;
      }
    });

    it('while suspended, is not woken by resume', () => {
      const sink = new RecordingSink();
      const framer = new Framer(sink);
      sink.accepts = false;
      framer.push(stream);
      framer.stop();
      sink.accepts = true;
      run(framer, 1000);
      expect(sink.asked).to.have.length(1);
      expect(sink.frames).to.be.empty;
      expect(framer.midFrame).to.be.false;
    });
  });
});
