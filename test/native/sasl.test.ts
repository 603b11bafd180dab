import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import { openLibrary } from '../../lib/native/sasl-library.js';
import { SaslServer, type SaslSecurity } from '../../lib/native/sasl.js';
import { saslEnvironment, type SaslEnvironment } from './sasl-environment.js';

const anything: SaslSecurity = {
  minSsf: 0,
  maxSsf: 0,
  maxBufferSize: 65536,
  noPlaintext: false,
  noAnonymous: false,
};

const rejection = async (promise: Promise<unknown>): Promise<NativeError> => {
  try {
    await promise;
  } catch (error) {
    expect(error).to.be.instanceOf(NativeError);
    return error as NativeError;
  }
  throw new Error('was not refused');
};

describe('native/sasl (needs saslpasswd2)', () => {
  let environment: SaslEnvironment;
  const servers: SaslServer[] = [];

  before(function () {
    environment = saslEnvironment() ?? this.skip();
  });
  afterEach(() => {
    for (const server of servers.splice(0)) server.dispose();
  });

  const open = async (security = anything): Promise<SaslServer> => {
    const server = await SaslServer.open({});
    servers.push(server);
    server.setSecurity(security);
    return server;
  };
  const plain = (password = 'secret'): Buffer => Buffer.from(`\0fred\0${password}`);

  it('says what to install when the library is missing', () => {
    expect(() => openLibrary(['libno-such-sasl.so.1', 'libno-such-sasl.so.2']))
      .to.throw(NativeError, /libno-such-sasl\.so\.1.*no-such-sasl\.so\.2.*libsasl2-2/)
      .with.property('code', 'SASL_MISSING');
  });

  it('lists what libvirt.conf allows and the security asked for leaves', async () => {
    const server = await open();
    expect(server.listMechanisms()).to.equal('SCRAM-SHA-512,SCRAM-SHA-256,DIGEST-MD5,PLAIN');
    server.setSecurity({ ...anything, noPlaintext: true });
    expect(server.listMechanisms()).to.equal('SCRAM-SHA-512,SCRAM-SHA-256,DIGEST-MD5');
    server.setSecurity({ ...anything, minSsf: 112, maxSsf: 256 });
    expect(server.listMechanisms()).to.equal('DIGEST-MD5');
    server.setExternalSsf(128);
    expect(server.listMechanisms()).to.include('PLAIN');
    server.setExternalSsf(0);
    server.setSecurity({ ...anything, minSsf: 1000, maxSsf: 2000 });
    expect(server.listMechanisms()).to.equal('');
  });

  it('tells NULL from empty in both directions', async () => {
    const empty = Buffer.alloc(0);
    const asked = await (await open()).start('PLAIN', null);
    expect(asked).to.deep.equal({ complete: false, data: empty });
    const error = await rejection((await open()).start('PLAIN', empty));
    expect(error.message).to.include('sasl_server_start: ').and.to.include('author');
    const waiting = await (await open()).start('SCRAM-SHA-256', null);
    expect(waiting).to.deep.equal({ complete: false, data: null });
  });

  it('refuses addresses that are none', async () => {
    const error = await rejection(SaslServer.open({ remoteAddress: 'nonsense' }));
    expect(error.call).to.equal('sasl_server_new');
    const server = await SaslServer.open({ localAddress: '::1;16509', remoteAddress: '::1;99' });
    server.dispose();
  });

  it('keeps what the client sent from forging lines of the log', async () => {
    const error = await rejection((await open()).start('NO\nSUCH', null));
    expect(error.message).to.include('NO?SUCH');
  });

  it('allows one call at a time and none after disposal', async () => {
    const server = await open();
    const first = server.start('SCRAM-SHA-256', null);
    expect(() => server.listMechanisms()).to.throw(NativeError, 'under way');
    expect((await rejection(server.step(null))).message).to.include('under way');
    await first;
    expect(() => server.userName()).to.throw(NativeError, 'sasl_getprop');
    server.dispose();
    server.dispose();
    expect(() => server.encode(Buffer.from('x'))).to.throw(NativeError, 'given up');
    expect((await rejection(server.step(null))).message).to.include('given up');
  });

  describe('with a saslauthd that takes its time', () => {
    let daemon: Server;
    let requests: { service: string; socket: Socket }[];
    let arrived: () => void;

    const until = async (count: number): Promise<void> => {
      while (requests.length < count) await new Promise<void>((resolve) => (arrived = resolve));
    };
    const reply = (socket: Socket, text: string): void => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(text.length);
      socket.end(Buffer.concat([length, Buffer.from(text)]));
    };

    beforeEach(async () => {
      requests = [];
      arrived = () => undefined;
      daemon = createServer((socket) => {
        socket.once('data', (data) => {
          requests.push({ service: data.toString('latin1'), socket });
          arrived();
        });
      });
      daemon.listen(environment.saslauthd);
      await once(daemon, 'listening');
    });
    afterEach(async () => {
      for (const { socket } of requests) socket.destroy();
      daemon.close();
      await once(daemon, 'close');
    });

    it('leaves this thread and the file system free, and runs logins side by side', async () => {
      const fresh = await Promise.all(Array.from({ length: 5 }, () => open()));
      const logins = Promise.allSettled(
        fresh.map((server, index) => server.start('PLAIN', plain(`password${index}`))),
      );
      // The daemon lives in this very process: a call on this thread would wait for ever.
      await until(3);
      await stat('/');
      expect(requests, 'no more than three at once').to.have.length(3);
      reply(requests[0]!.socket, 'OK');
      reply(requests[1]!.socket, 'NO wrong');
      await until(5);
      for (const { socket } of requests.slice(2)) reply(socket, 'OK');
      const results = await logins;
      expect(results.map(({ status }) => status).sort()).to.deep.equal([
        'fulfilled',
        'fulfilled',
        'fulfilled',
        'fulfilled',
        'rejected',
      ]);
      expect(requests[0]!.service).to.include('libvirt').and.to.include('fred');
    });

    it('keeps a disposed exchange in memory until the call has returned', async () => {
      const server = await open();
      const login = rejection(server.start('PLAIN', plain()));
      await until(1);
      server.dispose();
      reply(requests[0]!.socket, 'OK');
      expect((await login).message).to.include('given up');
    });

    it('never starts a call of an exchange that was disposed of in the queue', async () => {
      const fresh = await Promise.all(Array.from({ length: 4 }, () => open()));
      const logins = fresh.map((server) => server.start('PLAIN', plain()));
      await until(3);
      fresh[3]!.dispose();
      for (const { socket } of requests) reply(socket, 'OK');
      expect((await rejection(logins[3]!)).message).to.include('given up');
      await Promise.all(logins.slice(0, 3));
      expect(requests).to.have.length(3);
    });
  });
});
