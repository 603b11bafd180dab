import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  headerLength,
  keepalive,
  maxFrameLength,
  maxFrameLengthBeforeLogin,
  messageType,
  program,
} from '../../lib/rpc/frame.js';
import { encodeInt, encodeOpenArguments, procedure } from '../../lib/rpc/session-messages.js';
import { SaslClient } from '../native/sasl-client.js';
import { saslEnvironment } from '../native/sasl-environment.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  type CertificateFiles,
} from '../peers/certificates.js';
import { account, python } from '../peers/clients.js';
import { frameOf } from '../peers/frame-socket.js';
import { LogWatch } from '../peers/log-watch.js';
import { PolkitHost } from '../peers/polkit.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { beginTls, connectTcp, connectTls } from '../peers/remote-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { encodeSaslStart, encodeSaslStep, readSaslReply } from '../peers/sasl-frames.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory } from '../peers/waiting.js';

const obstacle = PolkitHost.missing() ?? certificatesLacking() ?? saslAccountsLacking();

// Any call of the hypervisor's daemon would do.
const call = 59;

const openFrame = frameOf(
  { procedure: procedure.connectOpen, serial: 70 },
  encodeOpenArguments({ name: 'qemu:///system', flags: 0 }),
);
const callFrame = frameOf({ procedure: call, serial: 71 });

/**
 * Sends the hexadecimal bytes of argv[2] in one go, says with argv[3] that this is all, and prints
 * what comes back.
 */
const packetScript = `
import socket, sys
it = socket.socket(socket.AF_UNIX)
it.connect(sys.argv[1])
it.sendall(bytes.fromhex(sys.argv[2]))
if len(sys.argv) > 3:
    it.shutdown(socket.SHUT_WR)
while chunk := it.recv(65536):
    print(chunk.hex(), end="")
`;

describe(`what a client sends before it is in${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  let directory: string;
  let ca: Authority;
  let certificate: CertificateFiles;
  let polkit: PolkitHost;
  let proxy: Proxy;
  let tcp: number;
  let tls: number;
  let daemon: StandInDaemon;
  let log: LogWatch;

  before(async function () {
    if (obstacle !== undefined) this.skip();
    saslEnvironment();
    directory = await freshDirectory();
    ca = Authority.create(directory, 'authority');
    certificate = ca.issue('client');
    const server = ca.issue('server', { purpose: purpose.server });
    const users = { fred: 'password' };
    const accounts = await SaslAccounts.create({ directory, mechanisms: 'DIGEST-MD5', users });
    polkit = await PolkitHost.start({
      rules: `polkit.addRule(function () { return polkit.Result.YES; });`,
    });
    [tcp, tls] = (await freePorts(2)) as [number, number];
    proxy = await Proxy.start({
      conf: {
        listen_tcp: 1,
        listen_tls: 1,
        tcp_port: String(tcp),
        tls_port: String(tls),
        ca_file: ca.cert,
        cert_file: server.cert,
        key_file: server.key,
        auth_unix_rw: 'polkit',
      },
      cluster: `[routes]\nqemu = ${join(directory, 'daemon')}\n[cluster]\nworkers = 1\n`,
      env: { ...accounts.serverEnv, DBUS_SYSTEM_BUS_ADDRESS: polkit.busAddress },
    });
  });
  beforeEach(async () => {
    daemon = await StandInDaemon.listen(join(directory, 'daemon'));
    log = new LogWatch(proxy);
  });
  afterEach(async () => {
    // The clients have left. A connection that this daemon ended first would be told of in the next
    // test's log.
    await Promise.all(daemon.connections.map(({ end }) => end));
    await daemon.stop();
  });
  after(async () => {
    if (obstacle !== undefined) return;
    await proxy.stop();
    await polkit.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /**
   * Lets somebody in who may, so that all that came before has been dealt with, and sees nothing
   * else at the daemon.
   */
  async function expectNothingForwarded(): Promise<void> {
    const client = await RawClient.connect(proxy.socket);
    await client.call(procedure.authList);
    expect((await client.openUri('qemu:///system')).status).to.equal(0);
    client.destroy();
    expect(daemon.connections).to.have.length(1);
    // So that the proxy does not lose the daemon before it has noticed that the client is gone, and
    // say so.
    await daemon.connections[0]!.end;
    const seen = daemon.seen.map((frame) => frame.procedure);
    expect(seen).to.deep.equal([
      procedure.authList,
      procedure.connectOpen,
      procedure.connectSetIdentity,
    ]);
  }

  describe('over TLS', () => {
    it('is refused in clear, in place of a handshake', async () => {
      const client = await connectTcp(tls);
      client.send(openFrame, callFrame);
      await client.end;
      expect(client.frames).to.deep.equal([]);
      await log.onlyLine(/\(tls, 127\.0\.0\.1;\d+\) was refused: The TLS handshake failed/);
      await expectNothingForwarded();
    });

    it('is refused in one packet with the end of the handshake', async () => {
      const socket = beginTls({ port: tls, ca: ca.cert, certificate });
      socket.write(Buffer.concat([openFrame, callFrame]));
      const received: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => received.push(chunk));
      await once(socket, 'close');
      expect(Buffer.concat(received).toString('hex')).to.equal('');
      await log.onlyLine(/was refused: It sent data before it was told to go ahead\.$/);
      await expectNothingForwarded();
    });

    it('is refused without a certificate', async () => {
      const socket = beginTls({ port: tls, ca: ca.cert });
      socket.write(Buffer.concat([openFrame, callFrame]));
      socket.resume();
      await once(socket, 'close');
      await log.onlyLine(/was refused: The client sent no certificate/);
      await expectNothingForwarded();
    });

    it('is taken once the server has told to go ahead', async () => {
      const client = await connectTls({ port: tls, ca: ca.cert, certificate });
      client.send(openFrame, callFrame);
      expect((await client.replyTo(70)).status).to.equal(0);
      await (await daemon.connection()).takeCall(call);
      client.destroy();
    });
  });

  describe('over TCP with SASL', () => {
    let client: RawClient;

    beforeEach(async () => {
      client = await connectTcp(tcp);
    });
    afterEach(() => client.destroy());

    /** The last step of an exchange that will succeed, ready to be sent. */
    async function lastStep(peer: SaslClient): Promise<Buffer> {
      await client.call(procedure.authSaslInit);
      const start = encodeSaslStart('DIGEST-MD5', peer.start('DIGEST-MD5'));
      const { payload } = await client.call(procedure.authSaslStart, start);
      const { data } = readSaslReply(payload);
      const header = { procedure: procedure.authSaslStep, serial: 50 };
      return frameOf(header, encodeSaslStep(peer.step(data)));
    }

    const newPeer = (): SaslClient =>
      new SaslClient({ user: 'fred', password: 'password', maxSsf: 256 });

    it('is answered with an error, whichever call it is', async () => {
      const numbers = [
        procedure.connectOpen,
        procedure.connectClose,
        procedure.connectSetIdentity,
        procedure.connectRegisterCloseCallback,
        call,
        3,
        9999,
      ];
      for (const number of numbers) {
        const error = readError(await client.call(number, encodeInt(1)));
        expect(error, `procedure ${number}`).to.include({ code: 39, domain: 7 });
        expect(error.message).to.match(/authentication required/);
      }
      await expectNothingForwarded();
    });

    it('is answered once, whatever is wrong with it', async () => {
      const { connectSupportsFeature: featureCall, authList } = procedure;
      const odd = [
        { procedure: featureCall, version: 2 },
        { procedure: featureCall, status: 1 },
        { procedure: authList, version: 2 },
        { procedure: authList, status: 2 },
        { procedure: authList, program: 0x1234 },
      ];
      odd.forEach((header, serial) => client.send(frameOf({ ...header, serial }, encodeInt(10))));
      for (const [serial, { version = 1, ...header }] of odd.entries()) {
        const reply = await client.replyTo(serial);
        expect(reply).to.include({ procedure: header.procedure, version, status: 1 });
        expect(readError(reply)).to.include({ code: 39, domain: 7 });
      }
      await client.ping();
      expect(client.frames).to.deep.equal([]);
      await expectNothingForwarded();
    });

    it('is refused when it announces descriptors', async () => {
      const header = { procedure: call, type: messageType.callWithFds };
      client.send(frameOf(header, encodeInt(0)));
      await client.end;
      expect(client.frames).to.deep.equal([]);
      await log.onlyLine(/login failed: sent a call with descriptors before it had logged in$/);
      await expectNothingForwarded();
    });

    it('is refused when it is longer than any frame of a login', async () => {
      const lengths = [maxFrameLengthBeforeLogin + 1, maxFrameLength, 0xffff_ffff];
      for (const length of lengths) {
        const stranger = await connectTcp(tcp);
        const announced = frameOf({ procedure: procedure.authList });
        announced.writeUInt32BE(length);
        stranger.send(announced);
        await stranger.end;
        await log.line(
          new RegExp(`announced a frame of ${length} bytes, allowed are 28 to 131072`),
        );
      }
      await expectNothingForwarded();
    });

    it('is answered when it is as long as a frame of a login may be', async () => {
      const payload = Buffer.alloc(maxFrameLengthBeforeLogin - headerLength);
      expect((await client.call(procedure.authList, payload)).status).to.equal(0);
    });

    it('is answered with an error when it is a call of another program', async () => {
      const qemu = 0x2000_8087;
      const reply = await client.call(procedure.authSaslInit, undefined, { program: qemu });
      expect(readError(reply).code).to.equal(39);
      await expectNothingForwarded();
    });

    it('is refused in one packet with the beginning of the login', async () => {
      client.send(frameOf({ procedure: procedure.authSaslInit }), openFrame, callFrame);
      await client.end;
      await log.onlyLine(/login failed: sent more while a step of its SASL login was under way$/);
      await expectNothingForwarded();
    });

    for (const [title, slipped, why] of [
      ['a call', openFrame, /sent more while a step of its SASL login was under way$/],
      ['a stream frame', frameOf({ procedure: call, type: messageType.stream }), /sent more/],
      [
        'a PING',
        frameOf({
          procedure: keepalive.ping,
          program: program.keepalive,
          type: messageType.message,
        }),
        /sent more/,
      ],
      ['a piece of a frame', openFrame.subarray(0, 20), /sent bytes outside the SASL layer/],
    ] as const) {
      it(`is refused when it is ${title} in one packet with the end of the login`, async () => {
        const peer = newPeer();
        client.send(await lastStep(peer), slipped);
        await client.end;
        peer.dispose();
        await log.onlyLine(why);
        await expectNothingForwarded();
      });
    }

    it('is refused in clear after the login', async () => {
      const peer = newPeer();
      client.send(await lastStep(peer));
      expect(readSaslReply((await client.replyTo(50)).payload).complete).to.be.true;
      client.send(openFrame, callFrame);
      await client.end;
      expect(client.frames).to.deep.equal([]);
      peer.dispose();
      await log.line(/\(tcp, 127\.0\.0\.1;\d+, SASL user fred\)/);
      await expectNothingForwarded();
    });

    it('is taken through the layer after the login', async () => {
      const peer = newPeer();
      client.send(await lastStep(peer));
      const { data } = readSaslReply((await client.replyTo(50)).payload);
      peer.step(data);
      // What comes back is no frames any more.
      client.socket.removeAllListeners('data').resume();
      client.send(peer.encode(Buffer.concat([openFrame, callFrame])));
      await (await daemon.connection()).takeCall(call);
      peer.dispose();
    });
  });

  describe('over a UNIX socket with polkit', () => {
    it('is refused in one packet with the login, though polkit says yes', async () => {
      const login = frameOf({ procedure: procedure.authPolkit });
      const packet = Buffer.concat([login, openFrame, callFrame]).toString('hex');
      const { stdout } = await python(packetScript, [proxy.socket, packet], {
        user: account('nobody'),
      });
      expect(stdout).to.equal('');
      await log.onlyLine(/login failed: sent a call while a step of its login was under way$/);
      await expectNothingForwarded();
    });

    it('is answered with an error', async () => {
      const packet = Buffer.concat([openFrame, callFrame]).toString('hex');
      const { stdout } = await python(packetScript, [proxy.socket, packet, 'end'], {
        user: account('nobody'),
      });
      expect(stdout).to.contain(Buffer.from('authentication required').toString('hex'));
      await expectNothingForwarded();
    });
  });
});
