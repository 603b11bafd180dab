import { expect } from 'chai';
import { messageType, program, status } from '../../../lib/rpc/frame.js';
import { CallTable } from '../../../lib/worker/daemon/call-table.js';
import {
  carriesStream,
  judgeDaemonFrame,
  type LinkRole,
  type LinkSituation,
} from '../../../lib/worker/daemon/reply-gate.js';
import { frameOf, type SentHeader } from '../../peers/frame-socket.js';

const { reply, replyWithFds, stream, streamHole, message, callWithFds } = messageType;
const hostname = 59;
const openGraphics = 343;
const download = 209;
const nobodys = 9999;
const domainEvent = 318;
const networkEvent = 315;

/** Each has asked for the host's name under serial 5 and opened a stream under serial 6. */
function situationOf(role: LinkRole, driver: string, followsDescriptors = true): LinkSituation {
  const calls = new CallTable();
  calls.add(program.remote, hostname, 5, 0);
  calls.add(program.remote, openGraphics, 5, 0);
  calls.add(program.remote, nobodys, 5, 0);
  const streams = new CallTable();
  streams.add(program.remote, download, 6, 0);
  return { role, driver, calls, streams, followsDescriptors };
}

const qemu = situationOf('hypervisor', 'qemu');
const network = situationOf('secondary', 'network');
const unfollowed = situationOf('hypervisor', 'qemu', false);
const keepaliveOf = (procedure: number): SentHeader => ({
  program: program.keepalive,
  procedure,
  type: message,
});

type Row = readonly [
  title: string,
  situation: LinkSituation,
  header: SentHeader,
  verdict: string | RegExp,
];

const rows: readonly Row[] = [
  ['the reply to a call', qemu, { procedure: hostname, type: reply, serial: 5 }, 'reply'],
  ['an error', qemu, { procedure: hostname, type: reply, serial: 5, status: 1 }, 'reply'],
  ['a reply of another serial', qemu, { procedure: hostname, type: reply, serial: 6 }, /no call/],
  ['a reply of another procedure', qemu, { procedure: 60, type: reply, serial: 5 }, /no call/],
  [
    'a reply of another program',
    qemu,
    { program: program.qemu, procedure: hostname, type: reply, serial: 5 },
    /no call/,
  ],
  ['a reply that no table knows', qemu, { procedure: nobodys, type: reply, serial: 5 }, 'reply'],
  [
    'a reply with descriptors',
    qemu,
    { procedure: openGraphics, type: replyWithFds, serial: 5 },
    'reply',
  ],
  [
    'one that nobody looks for',
    unfollowed,
    { procedure: hostname, type: replyWithFds, serial: 5 },
    'break',
  ],
  [
    'descriptors of no call, looked for',
    qemu,
    { procedure: hostname, type: replyWithFds, serial: 9 },
    /no call/,
  ],
  [
    'a reply of version 2',
    qemu,
    { procedure: hostname, type: reply, serial: 5, version: 2 },
    /ver/,
  ],
  [
    'a part of a stream',
    qemu,
    { procedure: download, type: stream, serial: 6, status: status.continue },
    'stream',
  ],
  ['the end of a stream', qemu, { procedure: download, type: stream, serial: 6 }, 'end'],
  ['a stream’s error', qemu, { procedure: download, type: stream, serial: 6, status: 1 }, 'end'],
  ['a hole', qemu, { procedure: download, type: streamHole, serial: 6 }, 'stream'],
  ['a part of no stream', qemu, { procedure: download, type: stream, serial: 7 }, /no stream/],
  [
    'a part of a newer libvirt’s stream',
    qemu,
    { procedure: nobodys, type: stream, serial: 1, status: status.continue },
    'stream',
  ],
  ['that of a secondary daemon', network, { procedure: nobodys, type: stream }, /no stream/],
  ['a guest’s event', qemu, { procedure: domainEvent, type: message }, 'event'],
  [
    'a network’s event from its daemon',
    network,
    { procedure: networkEvent, type: message },
    'event',
  ],
  ['one from the hypervisor’s', qemu, { procedure: networkEvent, type: message }, 'event'],
  ['a guest’s from the network’s', network, { procedure: domainEvent, type: message }, /another/],
  ['an event that no table knows', network, { procedure: nobodys, type: message }, 'event'],
  ['an event that is a call’s number', qemu, { procedure: hostname, type: message }, /is none/],
  ['an event of no program', qemu, { program: 7, procedure: 1, type: message }, /is none/],
  ['a PING', qemu, keepaliveOf(1), 'ping'],
  ['a PONG', qemu, keepaliveOf(2), 'drop'],
  ['a call', qemu, { procedure: hostname, serial: 5 }, /type 0/],
  ['a call with descriptors', qemu, { procedure: hostname, type: callWithFds }, /type 4/],
  ['a frame of type 7', qemu, { procedure: hostname, type: 7 }, /type 7/],
];

/** A verdict in words. */
function verdictOn(bytes: Buffer, start: number, situation: LinkSituation): string {
  const verdict = judgeDaemonFrame(bytes, start, situation);
  return 'what' in verdict ? `refuse: ${verdict.what}` : verdict.fate;
}

describe('the verdict on a frame of a daemon', () => {
  for (const [title, situation, header, expected] of rows) {
    it(`is "${String(expected)}" for ${title}`, () => {
      const words = verdictOn(frameOf(header), 0, situation);
      if (typeof expected === 'string') expect(words).to.equal(expected);
      else
        expect(words)
          .to.match(/^refuse: /)
          .and.to.match(expected);
    });
  }

  it('does not depend on where in the buffer the frame lies', () => {
    const frame = frameOf({ procedure: hostname, type: reply, serial: 5 });
    const bytes = Buffer.concat([Buffer.alloc(100, 0xff), frame]);
    expect(verdictOn(bytes, 100, qemu)).to.equal('reply');
  });

  it('changes nothing: the same frame twice has the same verdict', () => {
    const frame = frameOf({ procedure: download, type: stream, serial: 6 });
    expect([verdictOn(frame, 0, qemu), verdictOn(frame, 0, qemu)]).to.eql(['end', 'end']);
  });
});

describe('a stream frame of a client', () => {
  it('is carried by a link where its stream is open', () => {
    const carried = (header: SentHeader, situation = qemu): boolean =>
      carriesStream(frameOf({ type: stream, ...header }), 0, situation);
    expect(carried({ procedure: download, serial: 6 })).to.be.true;
    expect(carried({ procedure: download, serial: 7 })).to.be.false;
    expect(carried({ procedure: nobodys, serial: 7 })).to.be.true;
    expect(carried({ procedure: nobodys, serial: 7 }, network)).to.be.false;
  });
});
