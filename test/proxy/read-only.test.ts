import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { program, status } from '../../lib/rpc/frame.js';
import { procedures, secondaryDrivers, type Procedure } from '../../lib/rpc/procedures.js';
import { errorCode, errorDomain, RpcError } from '../../lib/rpc/rpc-error.js';
import { openReadOnly, procedure, readOpenArguments } from '../../lib/rpc/session-messages.js';
import { certificatesLacking } from '../peers/certificates.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, type ProxyOptions } from '../peers/proxy.js';
import { RawClient, readError } from '../peers/raw-client.js';
import { connectTcp, connectTls } from '../peers/remote-client.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { encodeSaslStart } from '../peers/sasl-frames.js';
import { TlsPki } from '../peers/tls-pki.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { freshDirectory } from '../peers/waiting.js';

const isRoot = process.getuid?.() === 0;
const uri = 'qemu:///system';
const opening = [procedure.authList, procedure.connectOpen, procedure.connectSetIdentity];
/** Any but that of a read-only connection. */
const otherFlags = 4;
/** The identity has a test of its own. */
const calls = procedures.filter(
  ({ isEvent, route, number }) =>
    !isEvent && route !== 'session' && number !== procedure.connectSetIdentity,
);

/**
 * A daemon of every driver, each with a socket for clients that may write and one for those that
 * may not.
 */
class Host {
  private readonly daemons = new Map<string, StandInDaemon>();

  static async start(directory: string): Promise<Host> {
    const host = new Host();
    for (const driver of ['hypervisor', ...secondaryDrivers]) {
      for (const suffix of ['', '-ro']) {
        const daemon = await StandInDaemon.listen(join(directory, driver + suffix));
        for (const { number } of calls) {
          if (!opening.some((step) => step === number))
            daemon.answer(number, () => Buffer.alloc(0));
        }
        host.daemons.set(driver + suffix, daemon);
      }
    }
    return host;
  }

  daemon(route: string, readOnly: boolean): StandInDaemon {
    return this.daemons.get(readOnly ? `${route}-ro` : route)!;
  }

  /** Names of the daemons that anybody has connected to. */
  get visited(): string[] {
    return [...this.daemons].filter(([, { seen }]) => seen.length > 0).map(([name]) => name);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.daemons.values()].map((daemon) => daemon.stop()));
  }
}

/** A proxy whose [access] names a client, and that client. */
interface Narrowed extends Pick<ProxyOptions, 'conf' | 'env'> {
  readonly access: string;
  readonly connect: (proxy: Proxy) => Promise<RawClient>;
}

const plain = (user: string): Buffer => Buffer.from(`\0${user}\0password`);

/** By every key of [access] alone; files go into a directory. */
const narrowed: Readonly<
  Record<
    string,
    { readonly lacks?: string; readonly prepare: (place: string) => Promise<Narrowed> }
  >
> = {
  read_only_users: {
    prepare: () =>
      Promise.resolve({
        access: 'read_only_users = root',
        connect: ({ socket }) => RawClient.connect(socket),
      }),
  },
  read_only_groups: {
    prepare: () =>
      Promise.resolve({
        access: 'read_only_groups = 0',
        connect: ({ socket }) => RawClient.connect(socket),
      }),
  },
  read_only_listeners: {
    prepare: async () => {
      const [port] = (await freePorts(1)) as [number];
      return {
        access: 'read_only_listeners = tcp',
        conf: { listen_tcp: 1, auth_tcp: 'none', tcp_port: String(port) },
        connect: () => connectTcp(port),
      };
    },
  },
  read_only_addresses: {
    prepare: async () => {
      const [port] = (await freePorts(1)) as [number];
      return {
        access: 'read_only_addresses[] = 127.0.0.0/8',
        conf: { listen_tcp: 1, auth_tcp: 'none', tcp_port: String(port) },
        connect: () => connectTcp(port),
      };
    },
  },
  read_only_dn_list: {
    ...lackOf(certificatesLacking()),
    prepare: async (place) => {
      const { ca, client, port, conf } = await TlsPki.create(place);
      return {
        access: 'read_only_dn_list = CN=cli?nt',
        conf: { ...conf, auth_tls: 'none' },
        connect: () => connectTls({ port, ca: ca.cert, certificate: client }),
      };
    },
  },
  read_only_username_list: {
    ...lackOf(saslAccountsLacking()),
    prepare: async (directory) => {
      const users = { '*': 'password' };
      const { serverEnv: env } = await SaslAccounts.create({
        directory,
        mechanisms: 'PLAIN',
        users,
      });
      return {
        access: 'read_only_username_list = ?',
        conf: { auth_unix_rw: 'sasl' },
        env,
        connect: async ({ socket }) => {
          const client = await RawClient.connect(socket);
          await client.call(procedure.authSaslInit);
          const { status: outcome } = await client.call(
            procedure.authSaslStart,
            encodeSaslStart('PLAIN', plain('*')),
          );
          expect(outcome).to.equal(status.ok);
          return client;
        },
      };
    },
  },
};

function lackOf(lacks: string | undefined): { lacks?: string } {
  return lacks === undefined ? {} : { lacks };
}

describe(`every procedure of the table${isRoot ? '' : ' (skipped: needs root)'}`, function () {
  this.timeout(60_000);
  let directory: string;
  let proxy: Proxy;
  let host: Host;
  let client: RawClient;
  let routes: string;

  before(async function () {
    if (!isRoot) this.skip();
    directory = await freshDirectory();
    const lines = secondaryDrivers.map((driver) => `${driver} = ${join(directory, driver)}\n`);
    routes = `[routes]\nqemu = ${join(directory, 'hypervisor')}\n${lines.join('')}`;
    proxy = await Proxy.start({ cluster: routes });
  });
  beforeEach(async () => {
    host = await Host.start(directory);
  });
  afterEach(async () => {
    client.destroy();
    await host.stop();
  });
  after(async () => {
    if (!isRoot) return;
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /** Calls every one once, whatever comes of it. */
  async function callAll(): Promise<void> {
    for (const { program: number, number: called } of calls) {
      await client.call(called, Buffer.alloc(64), { program: number });
    }
  }

  /** Those that went to a daemon of `route`, in the table's order. */
  function servedBy(route: string, readOnly: boolean): string[] {
    const { seen } = host.daemon(route, readOnly);
    return seen
      .slice(opening.length)
      .map(({ program: number, procedure: each }) => `${number} ${each}`);
  }

  const wanted = (route: string): string[] =>
    calls
      .filter((row) => row.route === route && row.descriptors !== 'reply')
      .map(({ program: number, number: each }: Procedure) => `${number} ${each}`);

  /**
   * All calls were made, each of its driver's daemon, by that of its sockets and with those flags.
   */
  function expectVisits(readOnly: boolean): void {
    for (const route of ['hypervisor', ...secondaryDrivers]) {
      expect(servedBy(route, readOnly), route).to.include.members(wanted(route));
      expect(host.daemon(route, readOnly).connections, route).to.have.length(1);
      expect(host.daemon(route, !readOnly).connections, `the other of ${route}`).to.be.empty;
      const { seen } = host.daemon(route, readOnly);
      const flags = readOpenArguments(seen[1]!.payload).flags & openReadOnly;
      expect(flags, `flags of ${route}`).to.equal(readOnly ? openReadOnly : 0);
      expect(
        seen.slice(0, 3).map(({ procedure: number }) => number),
        route,
      ).to.eql(opening);
    }
  }

  const ways = [
    ['on the read-only socket', () => RawClient.open(proxy.readOnlySocket, uri), true],
    ['with the flag of a read-only connection', () => proxy.open(uri, openReadOnly), true],
    [
      'on the read-only socket with other flags',
      () => RawClient.open(proxy.readOnlySocket, uri, otherFlags),
      true,
    ],
    ['of a client that may write', () => proxy.open(uri), false],
  ] as const;
  for (const [way, connect, readOnly] of ways) {
    it(`${way} reaches the ${readOnly ? 'read-only' : 'read-write'} socket of its driver alone`, async () => {
      client = await connect();
      await callAll();
      expectVisits(readOnly);
    });
  }

  for (const [key, { lacks, prepare }] of Object.entries(narrowed)) {
    it(`of a client that ${key} names reaches the read-only socket of its driver alone${lacks === undefined ? '' : ` (skipped: ${lacks})`}`, async function () {
      if (lacks !== undefined) this.skip();
      const place = await freshDirectory();
      const { access, connect, conf = {}, env = {} } = await prepare(place);
      const own = await Proxy.start({ cluster: `${routes}[access]\n${access}\n`, conf, env });
      try {
        client = await connect(own);
        expect((await client.openUri(uri, otherFlags)).status).to.equal(status.ok);
        await callAll();
        expectVisits(true);
      } finally {
        await own.stop();
        await rm(place, { recursive: true, force: true });
      }
    });
  }

  it('fails when its driver’s daemon refuses the identity, and none is forwarded', async () => {
    const refusal = new RpcError(errorCode.accessDenied, errorDomain.rpc, 'not for you');
    for (const driver of secondaryDrivers) {
      host.daemon(driver, false).answer(procedure.connectSetIdentity, () => refusal);
    }
    client = await proxy.open(uri);
    for (const { program: number, number: called, route } of calls) {
      if (route === 'hypervisor') continue;
      const reply = await client.call(called, Buffer.alloc(64), { program: number });
      expect(reply.status, `${called}`).to.equal(status.error);
      const isRefused = readError(reply).message === 'access denied: not for you';
      expect(isRefused || number !== program.remote, `${called}`).to.be.true;
    }
    for (const driver of secondaryDrivers) {
      const { seen } = host.daemon(driver, false);
      expect(new Set(seen.map(({ procedure: number }) => number)), driver).to.eql(new Set(opening));
    }
  });

  it('fails when the hypervisor’s daemon refuses the identity, and none is forwarded', async () => {
    const refusal = new RpcError(errorCode.accessDenied, errorDomain.rpc, 'not for you');
    host.daemon('hypervisor', false).answer(procedure.connectSetIdentity, () => refusal);
    client = await RawClient.connect(proxy.socket);
    expect((await client.openUri(uri)).status).to.equal(status.error);
    for (const { program: number, number: called } of calls) {
      const reply = await client.call(called, Buffer.alloc(64), { program: number });
      expect(reply.status, `${called}`).to.equal(status.error);
    }
    expect(host.visited).to.eql(['hypervisor']);
    const { seen } = host.daemon('hypervisor', false);
    expect(seen.map(({ procedure: number }) => number)).to.eql(opening);
  });
});
