import { expect } from 'chai';
import { ReadGate } from '../../../lib/transport/read-gate.js';
import { HeldCalls } from '../../../lib/worker/relay/held-calls.js';
import { frameOf } from '../../rpc/frames.js';
import { ScriptedStream } from '../scripted-stream.js';

describe('calls that wait for their turn', () => {
  let stream: ScriptedStream;
  let held: HeldCalls;

  beforeEach(() => {
    stream = new ScriptedStream();
    held = new HeldCalls(new ReadGate(stream));
  });

  it('come in their order, in copies', () => {
    const bytes = frameOf(40, 1);
    held.add(bytes);
    bytes.fill(0);
    held.add(frameOf(44, 2));
    expect(held.size).to.equal(2);
    expect([held.next(), held.next()]).to.eql([frameOf(40, 1), frameOf(44, 2)]);
    expect(held.isEmpty).to.be.true;
    expect(() => held.next()).to.throw('no call is held');
  });

  it('stop the client’s reading at a mebibyte, until half of it has gone', () => {
    const quarter = Buffer.alloc(256 * 1024);
    for (let count = 0; count < 3; count++) held.add(quarter);
    expect(stream.isPaused).to.be.false;
    held.add(quarter);
    expect(stream.isPaused).to.be.true;
    held.next();
    expect(stream.isPaused).to.be.true;
    held.next();
    expect(stream.isPaused).to.be.false;
  });

  it('stop it at 4096 calls, until half of them have gone', () => {
    for (let serial = 0; serial < 4096; serial++) {
      expect(stream.isPaused).to.be.false;
      held.add(frameOf(28, serial));
    }
    for (let serial = 0; serial < 2048; serial++) {
      expect(stream.isPaused).to.be.true;
      expect(held.next()).to.eql(frameOf(28, serial));
    }
    expect(stream.isPaused).to.be.false;
    held.clear();
    expect(held.size).to.equal(0);
  });
});
