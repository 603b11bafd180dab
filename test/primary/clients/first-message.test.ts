import { closeSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import type { Transport } from '../../../lib/control/messages.js';
import { firstMessage, type FirstMessage } from '../../../lib/primary/clients/first-message.js';
import { longestRecord } from '../../../lib/transport/client-hello.js';
import { socketPair } from '../../native/sockets.js';
import { frameOf } from '../../peers/frame-socket.js';

const frame = frameOf({ procedure: 1 }, Buffer.alloc(8));
const record = Buffer.concat([Buffer.from([0x16, 3, 1, 0, 4]), Buffer.from('abcd')]);
const endless = Buffer.alloc(longestRecord, 0x7f);

const table: [what: string, Transport, Buffer, FirstMessage][] = [
  ['nothing', 'unix', Buffer.alloc(0), 'partial'],
  ['less than a length', 'unix', frame.subarray(0, 3), 'partial'],
  ['a frame but for its last byte', 'tcp', frame.subarray(0, -1), 'partial'],
  ['a frame', 'tcp', frame, 'whole'],
  [
    'a frame and the beginning of another',
    'unix',
    Buffer.concat([frame, frame.subarray(0, 9)]),
    'whole',
  ],
  ['a length that is none', 'unix', Buffer.alloc(4), 'whole'],
  ['as much of a long frame as is looked at', 'tcp', endless, 'whole'],
  ['a TLS record but for its last byte', 'tls', record.subarray(0, -1), 'partial'],
  ['less than a TLS record’s header', 'tls', record.subarray(0, 4), 'partial'],
  ['a TLS record', 'tls', record, 'whole'],
  ['what is no TLS', 'tls', Buffer.from('GET / HTTP/1.1'), 'whole'],
];

describe('primary/clients/first-message', () => {
  let theirs: number;
  let ours: number;
  const open = new Set<number>();

  beforeEach(() => {
    [theirs, ours] = socketPair();
    open.add(theirs).add(ours);
  });
  afterEach(() => {
    for (const fd of open) closeSync(fd);
    open.clear();
  });

  for (const [what, transport, bytes, expected] of table) {
    it(`takes ${what} for ${expected}, over ${transport}, and leaves it in the socket`, () => {
      if (bytes.length > 0) writeSync(theirs, bytes);
      expect(firstMessage(ours, transport)).to.equal(expected);
      expect(firstMessage(ours, transport)).to.equal(expected);
    });
  }

  it('sees that the client has left', () => {
    open.delete(theirs);
    closeSync(theirs);
    expect(firstMessage(ours, 'tcp')).to.equal('gone');
  });
});
