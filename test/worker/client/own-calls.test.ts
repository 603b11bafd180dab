import { expect } from 'chai';
import type { ClientIntroduction } from '../../../lib/control/messages.js';
import {
  headerLength,
  program,
  status,
  statusOf,
  type CallHeader,
} from '../../../lib/rpc/frame.js';
import { readErrorMessage } from '../../../lib/rpc/rpc-error.js';
import {
  encodeIdentityArguments,
  encodeInt,
  encodeOpenArguments,
  feature,
  procedure,
  type OpenArguments,
} from '../../../lib/rpc/session-messages.js';
import type { TypedParameter } from '../../../lib/rpc/typed-parameters.js';
import { serveOwnCall, type OwnCallsSession } from '../../../lib/worker/client/own-calls.js';
import { ClientProfile } from '../../../lib/worker/client/profile.js';
import { alreadyOpen } from '../../../lib/worker/relay/answers.js';

const { fdPassing, programKeepalive, remoteEventCallback } = feature;
const other: readonly TypedParameter[] = [{ field: 'user-name', type: 'string', value: 'alice' }];

/** What of a session an own call depends on. */
interface Situation {
  readonly uid?: number;
  readonly isOpened?: boolean;
  readonly hasSecondaries?: boolean;
  readonly passesDescriptors?: boolean;
}

/** A session that writes down what the call makes it do. */
class RecordingSession implements OwnCallsSession {
  readonly deeds: string[] = [];
  readonly profile: ClientProfile;
  readonly isOpened: boolean;
  readonly hasSecondaries: boolean;

  constructor(private readonly situation: Situation) {
    this.isOpened = situation.isOpened ?? true;
    this.hasSecondaries = situation.hasSecondaries ?? false;
    const local = { uid: situation.uid ?? 0, gid: 0, groups: [], pid: 1, startTime: null };
    const introduction = { id: 1, transport: 'unix', readOnly: false, remoteAddress: null, local };
    this.profile = new ClientProfile(introduction as unknown as ClientIntroduction, null);
  }

  answer(frame: Buffer): void {
    const payload = frame.subarray(headerLength);
    const isOk = statusOf(frame, 0) === status.ok;
    this.deeds.push(isOk ? `ok ${payload.toString('hex')}`.trim() : readErrorMessage(payload));
  }
  open(_call: CallHeader, { name, flags }: OpenArguments): void {
    if (this.isOpened) throw alreadyOpen;
    this.deeds.push(`open ${name ?? 'nothing'} ${flags}`);
  }
  close(reason: string): void {
    this.deeds.push(`close: ${reason}`);
  }
  watchKeepalive(): void {
    this.deeds.push('watch');
  }
  expectDescriptors(): boolean {
    this.deeds.push('expect descriptors');
    return this.situation.passesDescriptors ?? true;
  }
}

const serve = (session: OwnCallsSession, number: number, payload: Buffer): boolean =>
  serveOwnCall(session, { program: program.remote, procedure: number, serial: 1 }, payload);

const [no, yes] = ['ok 00000000', 'ok 00000001'];
const nothing = Buffer.alloc(0);
const { connectOpen, connectClose, connectSupportsFeature, connectSetIdentity } = procedure;
const opening = encodeOpenArguments({ name: 'qemu:///system', flags: 1 });
const identity = encodeIdentityArguments(other);

type Row = readonly [
  title: string,
  situation: Situation,
  procedure: number,
  payload: Buffer,
  /** What it does; the daemon is not given the call. */
  deeds: readonly string[],
];

const served: readonly Row[] = [
  [
    'CONNECT_OPEN opens what it names',
    { isOpened: false },
    connectOpen,
    opening,
    ['open qemu:///system 1'],
  ],
  [
    'CONNECT_OPEN is refused once a daemon is open',
    {},
    connectOpen,
    opening,
    ['internal error: connection already open'],
  ],
  [
    'CONNECT_OPEN cut short is refused',
    { isOpened: false },
    connectOpen,
    opening.subarray(0, 7),
    ['Unable to decode message payload'],
  ],
  [
    'CONNECT_CLOSE is answered before the connection ends',
    {},
    connectClose,
    nothing,
    ['ok', 'close: the client closed it'],
  ],
  [
    'keepalive is there before anything is open, and has the client watched',
    { isOpened: false },
    connectSupportsFeature,
    encodeInt(programKeepalive),
    ['watch', yes],
  ],
  [
    'descriptors are looked for from the moment they are asked about',
    {},
    connectSupportsFeature,
    encodeInt(fdPassing),
    ['expect descriptors', yes],
  ],
  [
    'descriptors cannot be passed where the connection does not carry them',
    { passesDescriptors: false },
    connectSupportsFeature,
    encodeInt(fdPassing),
    ['expect descriptors', no],
  ],
  [
    'events for callbacks are a feature of the proxy itself',
    {},
    connectSupportsFeature,
    encodeInt(remoteEventCallback),
    [yes],
  ],
  [
    'a feature that is cut short is refused',
    {},
    connectSupportsFeature,
    encodeInt(fdPassing).subarray(0, 3),
    ['Unable to decode message payload'],
  ],
  [
    'an identity is refused from anybody but root',
    { uid: 1000 },
    connectSetIdentity,
    identity,
    ['access denied: only root may act for another identity'],
  ],
  [
    'an identity is refused once a secondary daemon has been told one',
    { hasSecondaries: true },
    connectSetIdentity,
    identity,
    [
      'Requested operation is not valid: the identity must be set before a call that needs another daemon',
    ],
  ],
  [
    'an identity that is cut short is refused',
    {},
    connectSetIdentity,
    identity.subarray(0, 9),
    ['Unable to decode message payload'],
  ],
];

const forwarded: readonly (readonly [title: string, Situation, number, Buffer])[] = [
  ['a feature of the driver’s', {}, connectSupportsFeature, encodeInt(1)],
  [
    'a feature of the proxy’s before anything is open',
    { isOpened: false },
    connectSupportsFeature,
    encodeInt(fdPassing),
  ],
  ['an identity that root sets', {}, connectSetIdentity, identity],
  ['an identity before anything is open', { isOpened: false }, connectSetIdentity, identity],
  ['any other call', {}, 59, nothing],
];

describe('the calls that are the proxy’s own', () => {
  for (const [title, situation, number, payload, deeds] of served) {
    it(title, () => {
      const session = new RecordingSession(situation);
      expect(serve(session, number, payload)).to.be.true;
      expect(session.deeds).to.eql(deeds);
    });
  }

  for (const [title, situation, number, payload] of forwarded) {
    it(`are not ${title}, which goes on`, () => {
      const session = new RecordingSession(situation);
      expect(serve(session, number, payload)).to.be.false;
      expect(session.deeds).to.eql([]);
    });
  }

  it('leave it to the identity that root has set whom daemons are told of', () => {
    const session = new RecordingSession({});
    serve(session, connectSetIdentity, identity);
    expect(session.profile.parameters).to.eql(other);
  });

  it('set no identity before anything is open', () => {
    const session = new RecordingSession({ isOpened: false });
    serve(session, connectSetIdentity, identity);
    expect(session.profile.parameters).not.to.eql(other);
  });
});
