import { expect } from 'chai';
import { headerLength, messageType, program, status } from '../../../lib/rpc/frame.js';
import { collectLimit } from '../../../lib/rpc/framer.js';
import { encodeInt, procedure } from '../../../lib/rpc/session-messages.js';
import {
  judgeClientFrame,
  judgeForwarding,
  type ClientSituation,
} from '../../../lib/worker/client/frame-verdict.js';
import { frameOf, type SentHeader } from '../../peers/frame-socket.js';

const call = 59;
const fetchesDescriptors = 343;
const nobodys = 9999;

const opened: ClientSituation = {
  phase: 'opened',
  isLoginBusy: false,
  isSaslStepping: false,
  passesDescriptors: true,
  followsDescriptors: true,
  offeredDescriptors: 0,
};
const unopened: ClientSituation = { ...opened, phase: 'unopened' };
const stranger: ClientSituation = { ...opened, phase: 'login' };
const busy: ClientSituation = { ...stranger, isLoginBusy: true };

const two = { type: messageType.callWithFds, procedure: call };
const ping = { program: program.keepalive, procedure: 1, type: messageType.message };

type Row = readonly [
  title: string,
  situation: ClientSituation,
  header: SentHeader,
  verdict: string | RegExp,
  payload?: Buffer,
];

const rows: readonly Row[] = [
  ['a call', opened, { procedure: call }, 'call'],
  ['a call that no table knows', opened, { procedure: nobodys }, 'call'],
  ['a call of the qemu program', opened, { program: program.qemu, procedure: 1 }, 'call'],
  ['a call before the opening', unopened, { procedure: call }, /hypervisor connection not open/],
  [
    'an unknown call before the opening',
    unopened,
    { procedure: nobodys },
    /unknown procedure: 9999/,
  ],
  ['a call before the login', stranger, { procedure: call }, /authentication required/],
  ['a call during a step of the login', busy, { procedure: call }, /^refuse: .*step of its login/],
  [
    'anything during a step of SASL',
    { ...busy, isSaslStepping: true },
    ping,
    /^refuse: .*step of its SASL login/,
  ],
  ['a PING', opened, ping, 'pong'],
  ['a PING before the login', stranger, ping, 'pong'],
  ['a PONG', opened, { ...ping, procedure: 2 }, 'drop'],
  ['a keepalive call', opened, { ...ping, type: messageType.call }, 'drop'],
  ['a reply', opened, { procedure: call, type: messageType.reply }, 'drop'],
  ['a message', opened, { procedure: call, type: messageType.message }, 'drop'],
  ['a frame of type 7', opened, { procedure: call, type: 7 }, 'drop'],
  ['a stream frame', opened, { procedure: 209, type: messageType.stream }, 'stream'],
  ['a hole', opened, { procedure: 209, type: messageType.streamHole }, 'stream'],
  ['a stream frame before the opening', unopened, { procedure: 209, type: 3 }, 'drop'],
  ['a stream frame before the login', stranger, { procedure: 209, type: 3 }, 'drop'],
  ['a stream frame of no program', opened, { program: 7, procedure: 209, type: 3 }, 'drop'],
  ['a call of no program', opened, { program: 0x1234, procedure: 1 }, /program 4660 version 1/],
  ['a call of version 2', opened, { procedure: 1, version: 2 }, /536903814 version 2/],
  ['a call with a status', opened, { procedure: call, status: 1 }, /Unexpected message status 1/],
  ['CONNECT_OPEN', unopened, { procedure: procedure.connectOpen }, 'own'],
  ['CONNECT_OPEN a second time', opened, { procedure: procedure.connectOpen }, 'own'],
  ['CONNECT_OPEN before the login', stranger, { procedure: 1 }, /authentication required/],
  ['a feature', opened, { procedure: procedure.connectSupportsFeature }, 'own'],
  ['a feature before the login', stranger, { procedure: procedure.connectSupportsFeature }, 'own'],
  ['an identity', opened, { procedure: procedure.connectSetIdentity }, 'own'],
  ['a step of the login', stranger, { procedure: procedure.authSaslStart }, 'login'],
  ['a step of the login from one that is in', opened, { procedure: procedure.authList }, 'login'],
  [
    'such a step while another is under way',
    { ...opened, isLoginBusy: true },
    { procedure: 66 },
    'drop',
  ],
  ['descriptors before the login', stranger, two, /^refuse: .*descriptors before it had/],
  [
    'a call with its two descriptors',
    { ...opened, offeredDescriptors: 2 },
    two,
    'call',
    encodeInt(2),
  ],
  ['a call that lacks one', { ...opened, offeredDescriptors: 1 }, two, /^close: /, encodeInt(2)],
  ['a call with none and a count of 0', opened, two, 'call', encodeInt(0)],
  ['a call with descriptors and no count', opened, two, /^close: /],
  ['a call that fetches descriptors', opened, { procedure: fetchesDescriptors }, 'call'],
  [
    'one where none can be passed',
    { ...opened, passesDescriptors: false },
    { procedure: fetchesDescriptors },
    /fd passing is not supported/,
  ],
];

const large = Buffer.alloc(collectLimit);
const withCount = Buffer.concat([encodeInt(2), large]);

const largeRows: readonly Row[] = [
  ['a large call', opened, { procedure: call }, 'call'],
  ['a large call before the opening', unopened, { procedure: call }, /not open/],
  ['a large call of the proxy’s own', opened, { procedure: 1 }, /Unable to decode/],
  ['a large step of the login', opened, { procedure: procedure.authSaslStep }, /Unable to decode/],
  ['a large call of no program', opened, { program: 7, procedure: 1 }, /program 7 version 1/],
  ['a large stream frame', opened, { procedure: 208, type: 3, status: status.continue }, 'stream'],
  ['a large stream frame before the opening', unopened, { procedure: 208, type: 3 }, 'drop'],
  ['a large reply', opened, { procedure: call, type: messageType.reply }, 'drop'],
  ['a large call with descriptors that are looked for', opened, two, 'call', withCount],
  [
    'a large call with descriptors that are not looked for',
    { ...opened, followsDescriptors: false },
    two,
    /^close: /,
    withCount,
  ],
];

/** A verdict in words. */
function wordsOf(verdict: ReturnType<typeof judgeClientFrame>): string {
  if ('error' in verdict) return `answer: ${verdict.error.message}`;
  return 'reason' in verdict ? `${verdict.fate}: ${verdict.reason}` : verdict.fate;
}

function expectVerdict([, situation, , expected]: Row, frame: Buffer): void {
  // A large frame is judged by its header alone.
  const bytes = frame.length > collectLimit ? frame.subarray(0, headerLength) : frame;
  const words = wordsOf(judgeClientFrame(bytes, 0, frame.length, situation));
  if (typeof expected === 'string') expect(words).to.equal(expected);
  else expect(words).to.match(expected);
}

describe('the verdict on a frame of a client', () => {
  for (const row of rows) {
    it(`is "${String(row[3])}" for ${row[0]}`, () => {
      expectVerdict(row, frameOf(row[2], row[4]));
    });
  }

  for (const row of largeRows) {
    it(`is "${String(row[3])}" for ${row[0]}`, () => {
      expectVerdict(row, frameOf(row[2], row[4] ?? large));
    });
  }

  it('does not depend on where in the buffer the frame lies', () => {
    const frame = frameOf({ procedure: procedure.connectOpen });
    const bytes = Buffer.concat([Buffer.alloc(100, 0xff), frame]);
    expect(wordsOf(judgeClientFrame(bytes, 100, frame.length, unopened))).to.equal('own');
  });

  it('on what is left to a daemon after the proxy’s own look follows the phase', () => {
    const frame = frameOf({ procedure: procedure.connectSupportsFeature });
    const after = (situation: ClientSituation): string =>
      wordsOf(judgeForwarding(frame, 0, frame.length, situation));
    expect(after(stranger)).to.contain('authentication required');
    expect(after(unopened)).to.contain('not open');
    expect(after(opened)).to.equal('call');
  });
});
