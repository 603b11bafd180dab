import { expect } from 'chai';
import { Outbox } from '../../lib/transport/outbox.js';
import { frameOf } from '../rpc/frames.js';
import { ScriptedPassage, ScriptedStream } from '../worker/scripted-stream.js';

const one = {};
const other = {};
const [a, b, c] = [frameOf(40, 1), frameOf(44, 2), frameOf(48, 3)];
const chunk = Buffer.concat([a, b, c]);

describe('an outbox', () => {
  let stream: ScriptedStream;
  let passage: ScriptedPassage;
  let outbox: Outbox;

  beforeEach(() => {
    stream = new ScriptedStream();
    passage = new ScriptedPassage();
    stream.passage = passage;
    outbox = new Outbox(stream);
  });

  it('writes frames that lie side by side at once', () => {
    outbox.forward(one, chunk, 0, 40);
    outbox.forward(one, chunk, 40, 84);
    expect(stream.writes).to.eql([]);
    outbox.flush();
    expect(stream.writes).to.eql([chunk.subarray(0, 84)]);
    expect(outbox.writtenBytes).to.equal(84);
  });

  it('writes each by itself where one was left out between them', () => {
    outbox.forward(one, chunk, 0, 40);
    outbox.forward(one, chunk, 84, 132);
    outbox.flush();
    expect(stream.writes).to.eql([a, c]);
  });

  it('writes each by itself to a stream that separates frames', () => {
    stream.separatesFrames = true;
    outbox.forward(one, chunk, 0, 40);
    outbox.forward(one, chunk, 40, 84);
    outbox.flush();
    expect(stream.writes).to.eql([a, b]);
  });

  it('sends a frame of its own behind what was forwarded before', () => {
    outbox.forward(one, chunk, 0, 40);
    outbox.send(other, b);
    expect(stream.writes).to.eql([a, b]);
  });

  it('keeps others’ frames out of a large one, and sends them behind it', () => {
    expect(outbox.claim(one)).to.be.true;
    expect(outbox.claim(other)).to.be.false;
    outbox.forward(one, chunk, 0, 20);
    outbox.forward(other, chunk, 40, 84);
    outbox.send(other, c);
    expect(outbox.isBlockedFor(other)).to.be.true;
    expect(outbox.isBlockedFor(one)).to.be.false;
    expect(outbox.deferredBytes).to.equal(92);
    outbox.forward(one, chunk, 20, 40);
    outbox.release();
    expect(Buffer.concat(stream.writes)).to.eql(chunk);
    expect(outbox.deferredBytes).to.equal(0);
    expect(outbox.claim(other)).to.be.true;
  });

  it('copies what it defers', () => {
    const bytes = Buffer.from(b);
    outbox.claim(one);
    outbox.forward(other, bytes, 0, bytes.length);
    bytes.fill(0);
    outbox.release();
    expect(stream.writes).to.eql([b]);
  });

  it('sends descriptors behind their frame, also behind one that was deferred', () => {
    outbox.forward(one, chunk, 0, 40);
    outbox.sendDescriptors(one, [7]);
    expect([stream.writes, passage.sent]).to.eql([[a], [[7]]]);
    outbox.claim(one);
    outbox.send(other, b);
    outbox.sendDescriptors(other, [8, 9]);
    expect(passage.sent).to.have.length(1);
    outbox.release();
    expect([stream.writes, passage.sent]).to.eql([
      [a, b],
      [[7], [8, 9]],
    ]);
  });

  it('drops what was not given to the stream', () => {
    outbox.claim(one);
    outbox.send(other, b);
    outbox.forward(one, chunk, 0, 40);
    outbox.discard();
    outbox.release();
    expect(stream.writes).to.eql([]);
    expect(outbox.deferredBytes).to.equal(0);
  });
});
