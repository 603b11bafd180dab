import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { status } from '../../lib/rpc/frame.js';
import { encodeAuthList, procedure } from '../../lib/rpc/session-messages.js';
import { Misbehaviour } from '../lifecycle/misbehaviour.js';
import { saslEnvironment } from '../native/sasl-environment.js';
import { SaslClient } from '../native/sasl-client.js';
import { Authority, certificatesLacking, purpose } from '../peers/certificates.js';
import { startPython, virsh } from '../peers/clients.js';
import { connectedClient, openConnection } from '../peers/connected-client.js';
import { guestXml } from '../peers/guest.js';
import { LogWatch } from '../peers/log-watch.js';
import { whyNoHost, type ModularHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { connectTcp, tcpSocket } from '../peers/remote-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { encodeSaslStart, encodeSaslStep, readMechanisms } from '../peers/sasl-frames.js';
import { logIn, type SaslStream } from '../peers/sasl-stream.js';
import { sharedHost } from '../peers/shared-host.js';
import { freshDirectory, until } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? certificatesLacking() ?? saslAccountsLacking();

const users = { fred: 'pässword 7', bob: 'another' };

/** What virsh says when it is not let in; why is for the server's log alone. */
const failed = /^error: authentication failed: authentication failed$/m;

const eventScript = `
import libvirt
libvirt.virEventRegisterDefaultImpl()
${openConnection}
def defined(connection, domain, event, detail, opaque):
    print(domain.name(), event)
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, defined, None)
print("registered")
while True:
    libvirt.virEventRunDefaultImpl()
`;

describe(`SASL clients${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  let directory: string;
  let host: ModularHost;
  let ca: Authority;
  let tlsConf: Record<string, string | number>;
  let pki: string;

  before(async function () {
    if (obstacle !== undefined) this.skip();
    // This process's libsasl2 is used by other tests too, whose configuration must be there first.
    saslEnvironment();
    host = await sharedHost();
    directory = await freshDirectory();
    ca = Authority.create(directory, 'authority');
    const server = ca.issue('server', { purpose: purpose.server });
    tlsConf = { ca_file: ca.cert, cert_file: server.cert, key_file: server.key };
    pki = await ca.pkiDirectory('pki', ca.issue('client'));
  });
  after(async () => {
    if (obstacle === undefined) await rm(directory, { recursive: true, force: true });
  });

  describe('with SCRAM-SHA-256', () => {
    let proxy: Proxy;
    let accounts: SaslAccounts;
    let tcp: number;
    let tls: number;

    before(async () => {
      [tcp, tls] = (await freePorts(2)) as [number, number];
      accounts = await SaslAccounts.create({ directory, mechanisms: 'SCRAM-SHA-256', users });
      proxy = await Proxy.start({
        conf: {
          ...tlsConf,
          listen_tcp: 1,
          listen_tls: 1,
          tcp_port: String(tcp),
          tls_port: String(tls),
          auth_tls: 'sasl',
          auth_unix_rw: 'sasl',
          sasl_allowed_username_list: ['fr?d'],
        },
        cluster: host.routesIni(),
        env: accounts.serverEnv,
      });
    });
    after(() => proxy.stop());

    const tlsUri = (): string => `qemu+tls://localhost:${tls}/system?pkipath=${pki}`;

    for (const [over, uri] of [
      ['UNIX', () => proxy.uri()],
      ['TLS', tlsUri],
    ] as const) {
      describe(`over ${over}`, () => {
        it('are served, and known to the daemon by their user name', async () => {
          const client = await connectedClient(uri(), { env: await accounts.clientEnv('fred') });
          const clients = await host.daemon('qemu').clientInfo();
          await client.kill();
          expect(clients.map((info) => info['sasl_user_name'])).to.include('fred');
        });

        for (const [title, user, password, why] of [
          ['a wrong password', 'fred', 'wrong', 'SASL authentication failed: .*StoredKey mismatch'],
          ['an unknown user', 'joe', 'any', 'SASL authentication failed: .*user not found.*'],
          [
            'a user not on the list',
            'bob',
            users.bob,
            'SASL user bob is not on sasl_allowed_username_list',
          ],
        ] as const) {
          it(`are refused with ${title}`, async () => {
            const log = new LogWatch(proxy);
            const env = await accounts.clientEnv(user, password);
            expect((await virsh(uri(), ['uri'], { env })).stderr).to.match(failed);
            const peer =
              over === 'TLS'
                ? String.raw`tls, \S+;\d+, DN CN=client`
                : String.raw`unix, uid 0, pid \d+`;
            await log.onlyLine(new RegExp(`client \\d+ \\(${peer}\\): login failed: ${why}$`));
          });
        }
      });
    }

    it('are refused over plain TCP, where it is too weak for tcp_min_ssf', async () => {
      const log = new LogWatch(proxy);
      const env = await accounts.clientEnv('fred');
      const { stderr } = await virsh(`qemu+tcp://localhost:${tcp}/system`, ['uri'], { env });
      expect(stderr).to.match(failed);
      await log.onlyLine(/login failed: No SASL mechanism is strong enough for a tcp connection/);
    });

    describe('that are odd', () => {
      let client: RawClient;
      let log: LogWatch;

      beforeEach(async () => {
        client = await RawClient.connect(proxy.socket);
        log = new LogWatch(proxy);
      });
      afterEach(() => client.destroy());

      const init = async (): Promise<void> => {
        const { payload } = await client.call(procedure.authSaslInit);
        expect(readMechanisms(payload)).to.deep.equal(['SCRAM-SHA-256']);
      };

      /**
       * The call is answered with error 45 and no reason, the connection is closed, and the log
       * says why.
       */
      async function expectFailure(
        number: number,
        payload: Buffer | undefined,
        why: RegExp,
      ): Promise<void> {
        expect(readError(await client.call(number, payload))).to.include({
          code: 45,
          message: 'authentication failed: authentication failed',
        });
        await client.end;
        await log.onlyLine(why);
      }

      it('fail when they abort the exchange', async () => {
        await init();
        const peer = new SaslClient({ user: 'fred', password: users.fred });
        const first = peer.start('SCRAM-SHA-256');
        await client.call(procedure.authSaslStart, encodeSaslStart('SCRAM-SHA-256', first));
        await expectFailure(
          procedure.authSaslStep,
          encodeSaslStep(null),
          /login failed: SASL .*step/,
        );
        peer.dispose();
      });

      it('fail when they begin anew in the middle', async () => {
        await init();
        const start = encodeSaslStart('SCRAM-SHA-256', Buffer.from('n,,n=fred,r=abcdef'));
        await client.call(procedure.authSaslStart, start);
        await expectFailure(procedure.authSaslStart, start, /out of order/);
      });

      it('fail when they ask for the mechanisms twice', async () => {
        await init();
        await expectFailure(procedure.authSaslInit, undefined, /began a second SASL exchange/);
      });

      it('fail when they start before they know the mechanisms', async () => {
        const start = encodeSaslStart('SCRAM-SHA-256', Buffer.from('n,,n=fred,r=abcdef'));
        await expectFailure(procedure.authSaslStart, start, /before it asked for the mechanisms/);
      });

      it('fail with a mechanism that was not offered', async () => {
        await init();
        const start = encodeSaslStart('PLAIN', Buffer.from('\0fred\0pass'));
        await expectFailure(
          procedure.authSaslStart,
          start,
          /a SASL mechanism other than those offered/,
        );
      });

      it('fail with garbage', async () => {
        await init();
        const start = encodeSaslStart('SCRAM-SHA-256', randomBytes(30_000));
        await expectFailure(
          procedure.authSaslStart,
          start,
          /login failed: SASL authentication failed/,
        );
      });

      it('fail when they announce more data than a step may have', async () => {
        await init();
        const start = encodeSaslStart('SCRAM-SHA-256', Buffer.alloc(16));
        start.writeUInt32BE(65_537, start.length - 4 * 17);
        await expectFailure(procedure.authSaslStart, start, /login failed: data at byte/);
      });

      it('fail when they ask for polkit', async () => {
        await expectFailure(
          procedure.authPolkit,
          undefined,
          /asked for polkit where it is not offered/,
        );
      });

      it('are cut off when they send more data than a step may have', async () => {
        await init();
        client.begin(
          procedure.authSaslStart,
          encodeSaslStart('SCRAM-SHA-256', randomBytes(65_537)),
        );
        await client.end;
        expect(client.frames).to.deep.equal([]);
        await log.onlyLine(/ warning : .* announced a frame of \d+ bytes, allowed are 28 to \d+/);
      });
    });

    it('are told to use SASL even as root', async () => {
      const client = await RawClient.connect(proxy.socket);
      const { payload } = await client.call(procedure.authList);
      client.destroy();
      expect(payload).to.deep.equal(encodeAuthList([1]));
    });
  });

  describe('with DIGEST-MD5 over plain TCP', () => {
    let proxy: Proxy;
    let uri: string;
    let env: Record<string, string>;
    let port: number;
    let accounts: SaslAccounts;
    const misbehaviour = new Misbehaviour();

    before(async () => {
      [port] = (await freePorts(1)) as [number];
      // GSSAPI, which Debian offers too, would be the clients' first choice and needs a Kerberos
      // realm.
      const mechanisms = 'DIGEST-MD5 SCRAM-SHA-512 SCRAM-SHA-256 CRAM-MD5 PLAIN ANONYMOUS';
      accounts = await SaslAccounts.create({ directory, mechanisms, users });
      env = await accounts.clientEnv('fred');
      uri = `qemu+tcp://localhost:${port}/system`;
      proxy = await Proxy.start({
        conf: { listen_tcp: 1, tcp_port: String(port), auth_unix_rw: 'sasl' },
        cluster: `[cluster]\nworkers = 1\n${host.routesIni()}`,
        env: { ...accounts.serverEnv, ...misbehaviour.env() },
      });
    });
    after(async () => {
      await proxy.stop();
      misbehaviour.end();
    });

    /** A client that has logged in, through its layer. */
    async function enter(): Promise<RawClient<SaslStream>> {
      const account = { user: 'fred', password: users.fred };
      return new RawClient((await logIn(await tcpSocket(port), account))!);
    }

    it('are offered no mechanism without a layer, unlike local ones', async () => {
      const [remote, local] = [await connectTcp(port), await RawClient.connect(proxy.socket)];
      const offered = async (client: RawClient): Promise<string[]> =>
        readMechanisms((await client.call(procedure.authSaslInit)).payload);
      expect(await offered(remote)).to.deep.equal(['DIGEST-MD5']);
      expect(await offered(local)).to.include.members(['DIGEST-MD5', 'SCRAM-SHA-256', 'PLAIN']);
      remote.destroy();
      local.destroy();
    });

    it('are served, and known to the daemon by their user name', async () => {
      const client = await connectedClient(uri, { env });
      const clients = await host.daemon('qemu').clientInfo();
      await client.kill();
      expect(clients.map((info) => info['sasl_user_name'])).to.include('fred');
    });

    it('get events', async () => {
      const watcher = startPython(eventScript, [uri], { env });
      await until(() => watcher.stdout.includes('registered'), { what: 'the registration' });
      const file = join(directory, 'guest.xml');
      await writeFile(file, guestXml({ name: 'sasl-event' }));
      await host.daemon('qemu').virsh('define', file);
      await until(() => watcher.stdout.includes('sasl-event 0'), { what: 'the event' });
      await host.daemon('qemu').virsh('undefine', 'sasl-event');
      await until(() => watcher.stdout.includes('sasl-event 1'), { what: 'the other event' });
      await watcher.kill();
    });

    it('send and fetch a volume of 64 MiB through the layer byte for byte', async function () {
      this.timeout(60_000);
      const [pool, image, copy] = ['pool', 'image', 'copy'].map((name) =>
        join(directory, name),
      ) as [string, string, string];
      await mkdir(pool);
      const content = randomBytes(64 * 1024 * 1024);
      await writeFile(image, content);
      const storage = host.daemon('storage');
      await storage.virsh('pool-create-as', 'sasl-pool', 'dir', '--target', pool);
      try {
        const commands = [
          'vol-create-as sasl-pool volume 64M',
          `vol-upload volume ${image} --pool sasl-pool`,
          `vol-download volume ${copy} --pool sasl-pool`,
        ];
        const { stderr, code } = await virsh(uri, [commands.join(';')], { env, timeoutMs: 60_000 });
        expect(stderr).to.equal('');
        expect(code).to.equal(0);
        const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
        expect(digest(await readFile(join(pool, 'volume')))).to.equal(digest(content));
        expect(digest(await readFile(copy))).to.equal(digest(content));
      } finally {
        await storage.virsh('pool-destroy', 'sasl-pool');
      }
    });

    it('are all let in when they come 420 times to one worker', async function () {
      this.timeout(120_000);
      const log = new LogWatch(proxy);
      for (let count = 0; count < 420; count++) (await enter()).destroy();
      expect(log.lines.filter((line) => line.includes('login failed'))).to.deep.equal([]);
    });

    it('have their worker replaced when logins have used up its thread keys, and lose nothing', async () => {
      const log = new LogWatch(proxy);
      const [worker] = proxy.workers() as [number];
      const before = await enter();
      misbehaviour.order(worker, 'keys');
      await until(() => misbehaviour.obeys(worker), { what: 'the worker to take the keys' });
      const last = await enter();
      await log.line(
        new RegExp(
          String.raw` warning : daemon.pool : worker ${worker} has \d+ of 1024 thread keys in use by SASL logins: it drains and is replaced`,
        ),
      );
      const next = await enter();
      expect(proxy.workers()).to.include(worker).and.to.have.length(2);
      for (const client of [before, last, next]) {
        expect((await client.openUri('qemu:///system')).status).to.equal(status.ok);
        client.destroy();
      }
      await until(() => !proxy.workers().includes(worker), { what: 'the old worker to end' });
      expect(log.lines.filter((line) => / : error : |failed/.test(line))).to.deep.equal([]);
    });

    it('are refused with a wrong password', async () => {
      const log = new LogWatch(proxy);
      const wrong = await accounts.clientEnv('fred', 'wrong');
      expect((await virsh(uri, ['uri'], { env: wrong })).stderr).to.match(failed);
      await log.onlyLine(/client \d+ \(tcp, 127\.0\.0\.1;\d+\): login failed: SASL authentication/);
    });
  });
});
