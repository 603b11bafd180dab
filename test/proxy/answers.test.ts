import { expect } from 'chai';
import {
  headerLength,
  keepalive,
  maxFrameLength,
  messageType,
  program,
  status,
} from '../../lib/rpc/frame.js';
import {
  encodeInt,
  encodeOpenArguments,
  encodeString,
  feature,
  procedure,
} from '../../lib/rpc/session-messages.js';
import { XdrReader } from '../../lib/rpc/xdr-reader.js';
import { guestXml } from '../peers/guest.js';
import { frameOf, type ReceivedFrame } from '../peers/frame-socket.js';
import { whyNoHost } from '../peers/modular-host.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { sharedHost } from '../peers/shared-host.js';

const reason = whyNoHost();

const getHostname = 59;
const defineXml = 11;
const getUri = 110;
const listAllDomains = 273;
const registerCloseCallback = procedure.connectRegisterCloseCallback;

/** What C virtproxyd 9.0.0 answers, from the record of its answers; `level` is 2 everywhere. */
interface Answer {
  readonly code: number;
  readonly domain: number;
  readonly message: string;
  readonly str1: string;
  readonly str2: string;
  readonly int1?: number;
}

const plain = (code: number, domain: number, message: string): Answer => ({
  code,
  domain,
  message,
  str1: '%s',
  str2: message,
});

const prefixed = (code: number, domain: number, prefix: string, detail: string): Answer => ({
  code,
  domain,
  message: `${prefix}${detail}`,
  str1: `${prefix}%s`,
  str2: detail,
});

const internal = (detail: string, domain = 7): Answer =>
  prefixed(1, domain, 'internal error: ', detail);

function expectAnswer(reply: ReceivedFrame, answer: Answer): void {
  expect(readError(reply)).to.deep.equal({
    ...answer,
    level: 2,
    str3: null,
    int1: answer.int1 ?? -1,
    int2: -1,
  });
}

describe(`the proxy's answers to odd input${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let proxy: Proxy;
  let clients: RawClient[] = [];

  before(async function () {
    if (reason !== null) this.skip();
    this.timeout(60_000);
    const routes = (await sharedHost()).routesIni();
    proxy = await Proxy.start({ cluster: `${routes}[cluster]\ndaemon_restart_timeout = 0\n` });
  });

  afterEach(() => {
    for (const client of clients) client.destroy();
    clients = [];
  });

  after(() => (reason === null ? proxy.stop() : null));

  async function connected(): Promise<RawClient> {
    const client = await RawClient.connect(proxy.socket);
    clients.push(client);
    return client;
  }

  async function opened(uri: string | null = 'qemu:///system', flags = 0): Promise<RawClient> {
    const client = await proxy.open(uri, flags);
    clients.push(client);
    return client;
  }

  /** That the connection is alive and nothing but this one reply has come. */
  async function expectSilence(client: RawClient): Promise<void> {
    const reply = await client.call(getHostname);
    expect(reply.status).to.equal(status.ok);
    expect(client.frames).to.deep.equal([]);
  }

  /** That the connection ends without another frame. */
  async function expectClosed(client: RawClient): Promise<void> {
    await client.end;
    expect(client.frames).to.deep.equal([]);
  }

  const beforeOpen: readonly (readonly [string, number, Buffer | undefined, Answer])[] = [
    ['a call', getHostname, undefined, internal('hypervisor connection not open')],
    [
      'SUPPORTS_FEATURE of file descriptors',
      procedure.connectSupportsFeature,
      encodeInt(feature.fdPassing),
      internal('hypervisor connection not open'),
    ],
    ['procedure 0', 0, undefined, plain(39, 7, 'unknown procedure: 0')],
    ['procedure 9999', 9999, undefined, plain(39, 7, 'unknown procedure: 9999')],
    [
      'SASL_INIT where no login is asked for',
      procedure.authSaslInit,
      undefined,
      prefixed(45, 7, 'authentication failed: ', 'authentication failed'),
    ],
  ];
  for (const [input, number, payload, answer] of beforeOpen) {
    it(`before OPEN: ${input}`, async () => {
      const client = await connected();
      expectAnswer(await client.call(number, payload), answer);
    });
  }

  it('before OPEN: SUPPORTS_FEATURE of keepalive is answered yes', async () => {
    const client = await connected();
    const reply = await client.call(
      procedure.connectSupportsFeature,
      encodeInt(feature.programKeepalive),
    );
    expect(reply).to.include({ status: status.ok });
    expect(reply.payload).to.deep.equal(encodeInt(1));
  });

  it('AUTH_LIST is answered twice, with none', async () => {
    const client = await connected();
    for (let round = 0; round < 2; round++) {
      const reply = await client.call(procedure.authList);
      expect(reply.payload.toString('hex')).to.equal('0000000100000000');
    }
  });

  interface Odd {
    readonly input: string;
    readonly header: Parameters<typeof frameOf>[0];
    readonly payload?: Buffer;
    readonly answer: Answer;
  }
  const afterOpen: readonly Odd[] = [
    {
      input: 'a second OPEN',
      header: { procedure: procedure.connectOpen },
      payload: encodeOpenArguments({ name: 'qemu:///system', flags: 0 }),
      answer: internal('connection already open'),
    },
    ...[0, 9999].map((number) => ({
      input: `procedure ${number}`,
      header: { procedure: number },
      answer: plain(39, 7, `unknown procedure: ${number}`),
    })),
    {
      input: 'procedure 9999 of the qemu program',
      header: { procedure: 9999, program: program.qemu },
      answer: plain(39, 7, 'unknown procedure: 9999'),
    },
    {
      input: 'an unknown program',
      header: { procedure: 1, program: 0x1234 },
      answer: plain(39, 7, 'Cannot find program 4660 version 1'),
    },
    {
      input: 'version 2 of the remote program',
      header: { procedure: getHostname, version: 2 },
      answer: plain(39, 7, 'Cannot find program 536903814 version 2'),
    },
    {
      input: 'a call of status 1',
      header: { procedure: getHostname, status: 1 },
      answer: plain(39, 7, 'Unexpected message status 1'),
    },
    {
      input: 'a daemon’s arguments cut short',
      header: { procedure: defineXml },
      payload: Buffer.from('0000000a61', 'hex'),
      answer: plain(39, 7, 'Unable to decode message payload'),
    },
    {
      input: 'the proxy’s arguments cut short',
      header: { procedure: procedure.connectSupportsFeature },
      payload: Buffer.alloc(0),
      answer: plain(39, 7, 'Unable to decode message payload'),
    },
  ];
  for (const { input, header, payload, answer } of afterOpen) {
    it(input, async () => {
      const client = await opened();
      client.send(frameOf({ ...header, serial: 77 }, payload));
      const reply = await client.replyTo(77);
      const { program: asked = program.remote, version = 1, procedure: number } = header;
      expect(reply).to.include({ program: asked, version, procedure: number });
      expectAnswer(reply, answer);
      await expectSilence(client);
    });
  }

  it('OPEN cut short, before and after it has a name', async () => {
    const client = await connected();
    const whole = encodeOpenArguments({ name: 'qemu:///system', flags: 0 });
    for (const length of [0, 4, 12, whole.length - 1]) {
      const reply = await client.call(procedure.connectOpen, whole.subarray(0, length));
      expectAnswer(reply, plain(39, 7, 'Unable to decode message payload'));
    }
  });

  it('extra bytes after the arguments are served', async () => {
    const client = await opened();
    const asked = Buffer.concat([encodeInt(1), encodeInt(0), Buffer.from('more')]);
    expect((await client.call(listAllDomains, asked)).status).to.equal(status.ok);
    const feature10 = Buffer.concat([encodeInt(feature.programKeepalive), Buffer.from('more')]);
    const reply = await client.call(procedure.connectSupportsFeature, feature10);
    expect(reply.payload).to.deep.equal(encodeInt(1));
  });

  const dropped: readonly (readonly [string, Parameters<typeof frameOf>[0]])[] = [
    ['a REPLY', { procedure: getHostname, type: messageType.reply, serial: 5 }],
    ['a MESSAGE', { procedure: getHostname, type: messageType.message }],
    ['a frame of type 7', { procedure: getHostname, type: 7, serial: 5 }],
    [
      'a STREAM frame for no stream',
      { procedure: 208, type: messageType.stream, serial: 99, status: status.continue },
    ],
    [
      'a STREAM frame for no stream of the hypervisor’s',
      { procedure: 211, type: messageType.stream, serial: 99, status: status.ok },
    ],
    ['a STREAM_HOLE for no stream', { procedure: 208, type: messageType.streamHole, serial: 99 }],
  ];
  for (const [input, header] of dropped) {
    it(`${input} from the client is dropped`, async () => {
      const client = await opened();
      client.send(frameOf(header, encodeInt(0)));
      await expectSilence(client);
    });
  }

  for (const length of [3, 24, 27, maxFrameLength + 1, 0xffffffff]) {
    it(`a frame of ${length} bytes closes the connection at once`, async () => {
      const client = await opened();
      const announced = Buffer.alloc(4);
      announced.writeUInt32BE(length);
      client.send(announced);
      await expectClosed(client);
    });
  }

  it(`a frame of ${maxFrameLength} bytes is waited for`, async () => {
    const client = await opened();
    const frame = frameOf({ procedure: getHostname, serial: 6 });
    frame.writeUInt32BE(maxFrameLength, 0);
    client.send(frame);
    await client.sendWithRegard(Buffer.alloc(maxFrameLength - headerLength));
    expect((await client.replyTo(6, 10_000)).status).to.equal(status.ok);
  }).timeout(15_000);

  for (const [what, payload] of [
    ['without a count', undefined],
    ['with count 33', encodeInt(33)],
  ] as const) {
    it(`CALL_WITH_FDS ${what} closes the connection`, async () => {
      const client = await opened();
      client.send(frameOf({ procedure: getHostname, type: messageType.callWithFds }, payload));
      await expectClosed(client);
    });
  }

  it('CALL_WITH_FDS with count 0 is served', async () => {
    const client = await opened();
    const header = { procedure: getHostname, type: messageType.callWithFds, serial: 8 };
    client.send(frameOf(header, encodeInt(0)));
    expect((await client.replyTo(8)).status).to.equal(status.ok);
  });

  it('PING is answered by PONG: type 2, serial 0, status 0', async () => {
    for (const client of [await connected(), await opened()]) {
      expect(await client.ping()).to.deep.equal({
        program: program.keepalive,
        version: 1,
        procedure: keepalive.pong,
        type: messageType.message,
        serial: 0,
        status: status.ok,
        payload: Buffer.alloc(0),
      });
    }
  });

  it('CLOSE is answered, then the connection ends', async () => {
    for (const client of [await connected(), await opened()]) {
      const reply = await client.call(procedure.connectClose);
      expect(reply.status).to.equal(status.ok);
      expect(reply.payload).to.have.length(0);
      await expectClosed(client);
    }
  });

  const refusedUris: readonly (readonly [string, Answer])[] = [
    [
      'nosuch:///x',
      {
        ...plain(
          38,
          7,
          `Failed to connect socket to '/run/libvirt/virtnosuchd-sock': No such file or directory`,
        ),
        int1: 2,
      },
    ],
    ['::::', internal('Unable to parse URI ::::', 45)],
    [
      '/system',
      prefixed(
        5,
        0,
        'no connection driver available for ',
        `URI '/system' does not include a driver name`,
      ),
    ],
    [
      'qemu+foo:///system',
      prefixed(
        8,
        13,
        'invalid argument: ',
        'remote_open: transport in URL not recognised (should be tls|unix|ssh|ext|tcp|libssh2|libssh)',
      ),
    ],
  ];
  for (const [uri, answer] of refusedUris) {
    it(`OPEN ${uri} is refused, and another may be opened`, async () => {
      const client = await connected();
      expectAnswer(await client.openUri(uri), answer);
      expect((await client.openUri('qemu:///system')).status).to.equal(status.ok);
    });
  }

  it('OPEN of a long text that is nearly a URI is refused at once', async () => {
    const client = await connected();
    const uri = `//${'a'.repeat(200_000)}#\n`;
    expect(readError(await client.openUri(uri)).message).to.contain('Unable to parse URI');
  });

  for (const uri of [
    'qemu+tcp://127.0.0.1:1/system',
    'qemu://example.org/system',
    'qemu+ssh:///system',
  ]) {
    it(`OPEN ${uri}: the proxy does not dial out`, async () => {
      const error = readError(await (await connected()).openUri(uri));
      expect(error).to.include({ code: 84, domain: 7 });
      expect(error.message).to.contain(uri);
    });
  }

  const openedUris: readonly (readonly [string | null, string])[] = [
    ['qemu+unix:///system', 'qemu:///system'],
    ['qemu:///system?foo=bar', 'qemu:///system?foo=bar'],
    ['network:///system', 'network:///system'],
    ['', 'qemu:///system'],
    [null, 'qemu:///system'],
  ];
  for (const [uri, name] of openedUris) {
    it(`OPEN ${uri === null ? 'without a name' : `'${uri}'`} opens ${name}`, async () => {
      const client = await opened(uri);
      const reply = await client.call(getUri);
      expect(new XdrReader(reply.payload).string('uri', 1000)).to.equal(name);
    });
  }

  it('OPEN with flags 4 is served', async () => {
    await expectSilence(await opened('qemu:///system', 4));
  });

  it('DEFINE on a read-only connection is refused in the daemon’s words', async () => {
    const readOnly = await RawClient.open(proxy.readOnlySocket, 'qemu:///system');
    clients.push(readOnly);
    for (const client of [readOnly, await opened('qemu:///system', 1)]) {
      const reply = await client.call(defineXml, encodeString(guestXml({ name: 'never' })));
      const error = readError(reply);
      expect(error).to.include({ code: 29, domain: 20, level: 2 });
      expect(error.message).to.equal(
        'operation forbidden: read only access prevents virDomainDefineXML',
      );
    }
  });

  it('the hypervisor’s daemon dies: event 362, then every call but CLOSE fails', async () => {
    const qemu = (await sharedHost()).daemon('qemu');
    const told = await opened();
    const untold = await opened();
    expect((await told.call(registerCloseCallback)).status).to.equal(status.ok);
    await qemu.kill('SIGKILL');
    try {
      const event = await told.take((frame) => frame.procedure === 362, 'the event');
      expect(event).to.include({ type: messageType.message, serial: 1, status: status.ok });
      for (const client of [told, untold]) {
        for (let round = 0; round < 2; round++) {
          expectAnswer(await client.call(getHostname), internal('client socket is closed'));
        }
        expect((await client.call(procedure.connectClose)).status).to.equal(status.ok);
        await expectClosed(client);
      }
    } finally {
      await qemu.launch();
    }
  });
});
