import { rm } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { procedure } from '../../lib/rpc/session-messages.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { account, python, startPython } from '../peers/clients.js';
import { connectedClient } from '../peers/connected-client.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, type ProxyOptions } from '../peers/proxy.js';
import type { RawClient } from '../peers/raw-client.js';
import {
  beginTls,
  clientHello,
  connectTcp,
  connectTls,
  enterTls,
  tcpSocket,
} from '../peers/remote-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { encodeSaslStart } from '../peers/sasl-frames.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory, until } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? certificatesLacking() ?? saslAccountsLacking();

/**
 * Prints the milliseconds that each of argv[2] connections to argv[1] took until its first call was
 * answered.
 */
const timingScript = `
import libvirt, sys, time
for _ in range(int(sys.argv[2])):
    start = time.monotonic()
    connection = libvirt.open(sys.argv[1])
    connection.getHostname()
    print((time.monotonic() - start) * 1000)
    connection.close()
`;

/** Keeps a core busy for as long as a test may take at most. */
const burnScript = `
import time
end = time.monotonic() + 60
while time.monotonic() < end: pass
`;

/** A client that does not log in. */
class Stranger {
  isConnected = false;
  private socket: Socket;
  private stopped = false;

  /** `bytes` are all it ever sends. An `eager` one is back as soon as it is thrown out. */
  constructor(
    private readonly port: number,
    private readonly bytes: Buffer | null,
    private readonly eager: boolean,
  ) {
    this.socket = this.connect();
  }

  stop(): void {
    this.stopped = true;
    this.socket.destroy();
  }

  private connect(): Socket {
    const socket = createConnection({ host: '127.0.0.1', port: this.port });
    if (this.bytes !== null) socket.write(this.bytes);
    socket.on('connect', () => (this.isConnected = true));
    socket.on('error', () => undefined);
    socket.resume();
    socket.on('close', () => {
      if (this.eager && !this.stopped) this.socket = this.connect();
    });
    return socket;
  }
}

describe(`limits${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  let directory: string;
  let host: ModularHost;
  let accounts: SaslAccounts;
  let ca: Authority;
  let files: Record<string, string>;
  let tls: { port: number; ca: string; certificate: { cert: string; key: string } };
  let tcp: number;
  let proxy: Proxy;
  const strangers: { destroy(): void }[] = [];

  before(async function () {
    if (obstacle !== undefined) this.skip();
    host = await sharedHost();
    directory = await freshDirectory();
    ca = Authority.create(directory, 'authority');
    const server = ca.issue('server', { purpose: purpose.server });
    files = { ca_file: ca.cert, cert_file: server.cert, key_file: server.key };
    accounts = await SaslAccounts.create({
      directory,
      mechanisms: 'DIGEST-MD5',
      users: { fred: 'password' },
    });
    const [tcpPort, tlsPort] = (await freePorts(2)) as [number, number];
    tcp = tcpPort;
    tls = { port: tlsPort, ca: ca.cert, certificate: ca.issue('client') };
  });
  afterEach(async () => {
    for (const stranger of strangers.splice(0)) stranger.destroy();
    await proxy.stop();
  });
  after(async () => {
    if (obstacle === undefined) await rm(directory, { recursive: true, force: true });
  });

  /** Starts a proxy that listens on TCP with SASL, and on TLS. */
  async function start({
    conf,
    cluster,
  }: Pick<ProxyOptions, 'cluster'> & { conf?: object } = {}): Promise<void> {
    proxy = await Proxy.start({
      conf: {
        ...files,
        listen_tcp: 1,
        listen_tls: 1,
        tcp_port: String(tcp),
        tls_port: String(tls.port),
        ...conf,
      },
      cluster: `${host.routesIni()}[cluster]\n${cluster ?? ''}\n`,
      env: accounts.serverEnv,
    });
  }

  const keep = <Peer extends { destroy(): void }>(peer: Peer): Peer => {
    strangers.push(peer);
    return peer;
  };
  const stranger = async (): Promise<RawClient> => keep(await connectTcp(tcp));
  const asks = (client: RawClient): Promise<unknown> => client.call(procedure.authList);

  /** Root comes and goes, which takes longer than any other client would wait if it were let in. */
  async function rootIsServed(): Promise<void> {
    const root = await proxy.open();
    root.destroy();
  }

  it('let a client in within a second at the 99th percentile, whatever 500 idle strangers and 1 000 half-done handshakes do on a busy host', async function () {
    this.timeout(60_000);
    await start();
    for (let core = 0; core < availableParallelism(); core++) {
      const other = startPython(burnScript);
      keep({ destroy: () => void other.kill() });
    }
    const hello = await clientHello();
    const several = (count: number, ...args: ConstructorParameters<typeof Stranger>): Stranger[] =>
      Array.from({ length: count }, () => new Stranger(...args));
    const flood = [
      ...several(500, tcp, null, true),
      ...several(500, tls.port, hello.subarray(0, 20), true),
      ...several(500, tls.port, hello, false),
    ];
    keep({
      destroy: () => {
        for (const one of flood) one.stop();
      },
    });
    await until(() => flood.every(({ isConnected }) => isConnected), { what: 'the flood' });
    const pki = await ca.pkiDirectory('pki', tls.certificate);
    const uri = `qemu+tls://localhost:${tls.port}/system?pkipath=${pki}`;
    const clients = Array.from({ length: 2 }, () =>
      python(timingScript, [uri, '50'], { timeoutMs: 50_000 }),
    );
    const finished = await Promise.all(clients);
    expect(finished.map(({ stderr }) => stderr).join('')).to.equal('');
    const times = finished
      .map(({ stdout }) => stdout)
      .join('')
      .trim()
      .split('\n')
      .map(Number)
      .sort((a, b) => a - b);
    expect(times).to.have.length(100);
    expect(times[98], `of ${times.join(' ')}`).to.be.below(1000);
  });

  it('give up clients that have not logged in and opened in time', async () => {
    await start({ cluster: 'login_timeout = 1' });
    const log = new LogWatch(proxy);
    const began = performance.now();
    const idle = await stranger();
    const halfDone = keep(await connectTcp(tls.port));
    halfDone.send((await clientHello()).subarray(0, 20));
    const inside = keep(await connectTls(tls));
    const exchanging = await stranger();
    await exchanging.call(procedure.authSaslInit);
    await exchanging.call(procedure.authSaslStart, encodeSaslStart('DIGEST-MD5', null));
    await Promise.all([idle.end, halfDone.end, inside.end, exchanging.end]);
    expect(performance.now() - began).to.be.within(900, 5000);
    await log.line(
      /\(tcp, \S+\): nothing opened, 0 bytes in, .*did not log in and open within 1 seconds/,
    );
    await log.line(
      /\(tls, \S+\) was refused: It did not finish its TLS handshake within 1 seconds/,
    );
    await log.line(
      /\(tls, \S+, DN CN=client\): nothing opened, 0 bytes in, .*did not log in and open/,
    );
    await log.line(/\(tcp, \S+\): nothing opened, [1-9]\d* bytes in, .*did not log in and open/);
    expect(log.lines.filter((line) => line.includes(' warning : '))).to.have.length(4);
  });

  describe('of all clients together', () => {
    beforeEach(() =>
      start({
        conf: {
          auth_tcp: 'none',
          max_clients: 4,
          max_anonymous_clients: 4,
          unix_sock_rw_perms: '0777',
        },
      }),
    );

    it('let the next one wait until one leaves, and root in all the same', async () => {
      const first = keep(await connectTls(tls));
      await asks(first);
      const [second, third] = [await stranger(), await stranger()];
      await asks(second);
      await asks(third);
      const local = await connectedClient(proxy.uri(), { user: account('nobody') });
      const [fifth, sixth] = [await stranger(), await stranger()];
      const answers = [asks(fifth), asks(sixth)];
      await rootIsServed();
      expect([fifth.bytesReceived, sixth.bytesReceived]).to.deep.equal([0, 0]);

      first.destroy();
      await answers[0];
      await rootIsServed();
      expect(sixth.bytesReceived).to.equal(0);

      await local.kill();
      await answers[1];
      expect([second.ended, third.ended, fifth.ended]).to.deep.equal([false, false, false]);
    });

    it('turn away the one that has waited longest when too many wait', async () => {
      await proxy.stop();
      const limits = { max_clients: 1, max_anonymous_clients: 1, max_queued_clients: 2 };
      await start({ conf: { ...limits, auth_tcp: 'none' } });
      const log = new LogWatch(proxy);
      const inside = await stranger();
      await asks(inside);
      const [first, second, third] = [await stranger(), await stranger(), await stranger()];
      await first.end;
      await log.onlyLine(/ warning : rpc.reception : max_clients \(1\) .* turned away 1 so far/);
      const answer = asks(second);
      inside.destroy();
      await answer;
      expect(third.ended).to.be.false;
    });

    it('let the owner of a session in all the same', async () => {
      await proxy.stop();
      const user = account('nobody');
      proxy = await Proxy.start({
        user,
        conf: { max_clients: 1, max_anonymous_clients: 1 },
        cluster: host.routesIni(),
      });
      const first = await connectedClient(proxy.uri(), { user });
      const second = await connectedClient(proxy.uri(), { user });
      await Promise.all([first.kill(), second.kill()]);
    });
  });

  describe('of clients that have not logged in', () => {
    it('evict the oldest silent one', async () => {
      await start({ conf: { max_anonymous_clients: 3 } });
      const silent: RawClient[] = [];
      for (const port of [tcp, tls.port, tcp]) {
        silent.push(keep(await connectTcp(port)));
        await rootIsServed();
      }
      const [oldest, middle, newest] = silent as [RawClient, RawClient, RawClient];
      const next = await stranger();
      await asks(next);
      await oldest.end;
      expect([middle.ended, newest.ended]).to.deep.equal([false, false]);
      // A handshake in progress is nothing said.
      await asks(await stranger());
      await middle.end;
      expect([newest.ended, next.ended]).to.deep.equal([false, false]);
    });

    it('do not disturb those whose messages wait to be read, however long that takes us', async () => {
      await start({ conf: { max_anonymous_clients: 1 }, cluster: 'workers = 1' });
      const slow = await tcpSocket(tls.port);
      await rootIsServed();
      const [worker = 0] = proxy.workers();
      process.kill(worker, 'SIGSTOP');
      const entered = [enterTls({ ...tls, below: slow }), enterTls(tls)];
      // Longer than the patience with either, so that the one has been chosen to be evicted for the
      // other.
      await delay(800);
      process.kill(worker, 'SIGCONT');
      for (const socket of await Promise.all(entered)) keep(socket);
    });

    it('do not disturb those that are logging in', async () => {
      await start({ conf: { max_anonymous_clients: 2 } });
      const [first, second] = [await stranger(), await stranger()];
      await asks(first);
      await asks(second);
      const third = await stranger();
      const answer = asks(third);
      await rootIsServed();
      expect(third.bytesReceived).to.equal(0);
      first.destroy();
      await answer;
      expect(second.ended).to.be.false;
    });

    it('do not count those that have', async () => {
      await start({ conf: { max_anonymous_clients: 1 } });
      const inside = [await connectTls(tls), await connectTls(tls), await connectTls(tls)].map(
        keep,
      );
      for (const client of inside) await asks(client);
      const handshake = keep(beginTls(tls));
      await asks(await stranger());
      handshake.destroy();
      expect(inside.map(({ ended }) => ended)).to.deep.equal([false, false, false]);
    });

    it('are none with max_anonymous_clients = 0', async () => {
      await start({ conf: { max_anonymous_clients: 0 } });
      const all = await Promise.all(Array.from({ length: 40 }, stranger));
      await asks(await stranger());
      await rootIsServed();
      await asks(await stranger());
      expect(all.filter(({ ended }) => ended)).to.deep.equal([]);
    });
  });
});
