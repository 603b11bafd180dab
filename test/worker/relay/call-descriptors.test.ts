import { closeSync, fstatSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { ReadGate } from '../../../lib/transport/read-gate.js';
import { CallDescriptors } from '../../../lib/worker/relay/call-descriptors.js';
import { ScriptedStream } from '../scripted-stream.js';

describe('the descriptors of calls on their way', () => {
  let stream: ScriptedStream;
  let kept: CallDescriptors;

  beforeEach(() => {
    stream = new ScriptedStream();
    kept = new CallDescriptors(new ReadGate(stream));
  });

  it('belong to whoever takes them by the call’s serial, once', () => {
    expect(kept.keep(1, [10, 11])).to.be.true;
    expect(kept.keep(2, [12])).to.be.true;
    expect(kept.take(1)).to.eql([10, 11]);
    expect(kept.take(1)).to.eql([]);
    expect(kept.isEmpty).to.be.false;
    expect(kept.take(2)).to.eql([12]);
    expect(kept.isEmpty).to.be.true;
  });

  it('are not taken for a second call of that serial', () => {
    kept.keep(1, [10]);
    expect(kept.keep(1, [11])).to.be.false;
    expect(kept.take(1)).to.eql([10]);
  });

  it('stop the client’s reading at 128, until half of them have gone', () => {
    for (let serial = 0; serial < 4; serial++) {
      expect(stream.isPaused).to.be.false;
      kept.keep(serial, Array<number>(32).fill(1000));
    }
    expect(stream.isPaused).to.be.true;
    kept.take(0);
    expect(stream.isPaused).to.be.true;
    kept.take(1);
    expect(stream.isPaused).to.be.false;
  });

  it('are closed when nobody takes them', () => {
    const descriptor = openSync('/dev/null', 'r');
    kept.keep(1, [descriptor]);
    kept.clear();
    expect(kept.isEmpty).to.be.true;
    let closed = false;
    try {
      fstatSync(descriptor);
      closeSync(descriptor);
    } catch {
      closed = true;
    }
    expect(closed).to.be.true;
  });
});
