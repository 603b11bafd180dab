import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { procedure } from '../../lib/rpc/session-messages.js';
import { account, ClientProcess, python, run } from '../peers/clients.js';
import { freePorts } from '../peers/ports.js';
import { Proxy, type ProxyOptions } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { freshDirectory, until } from '../peers/waiting.js';

const isRoot = process.getuid?.() === 0;
const needsRoot = isRoot ? '' : ' (skipped: needs root)';
const hasIpv6 = readFileSync('/proc/net/if_inet6', 'utf8').includes(' lo');
const needsIpv6 = hasIpv6 ? '' : ' (skipped: needs IPv6)';

/** Below it a port takes a privilege. */
const firstFreePort = Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
const privilegedPort = 997;
const needsPrivilege =
  firstFreePort > privilegedPort ? needsRoot : ' (skipped: no port is privileged here)';

/** Prints the options of the sockets in process argv[1] whose peer has the port argv[2]. */
const optionsScript = `
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd_getfd = 438
pid, port = int(sys.argv[1]), int(sys.argv[2])
pidfd = os.pidfd_open(pid)
for name in os.listdir(f"/proc/{pid}/fd"):
    if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
        continue
    copy = libc.syscall(pidfd_getfd, pidfd, int(name), 0)
    if copy < 0:
        sys.exit(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    it = socket.socket(fileno=copy)
    try:
        if it.family != socket.AF_INET or it.getpeername()[1] != port:
            continue
    except OSError:
        continue
    print(
        "nodelay", it.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "keepalive", it.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    )
`;

/** A TCP listener without authentication. */
const open = { listen_tcp: 1, auth_tcp: 'none' } as const;

/** A service that /etc/services gives a port nobody listens on, and none that takes a privilege. */
async function freeService(): Promise<{ name: string; port: number } | null> {
  for (const line of readFileSync('/etc/services', 'utf8').split('\n').reverse()) {
    const [, name, number] = /^(\S+)\s+(\d+)\/tcp/.exec(line) ?? [];
    const port = Number(number);
    if (name === undefined || port < 1024) continue;
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    });
    if (free) return { name, port };
  }
  return null;
}

async function isServed(host: string, port: number): Promise<boolean> {
  const socket = createConnection({ host, port });
  try {
    await once(socket, 'connect');
  } catch {
    return false;
  }
  const client = new RawClient(socket);
  const reply = await client.call(procedure.authList);
  client.destroy();
  return reply.payload.length > 0;
}

describe('TCP and TLS listeners', () => {
  let port: number;

  beforeEach(async () => {
    [port] = (await freePorts(1)) as [number];
  });

  async function serving(
    conf: Record<string, string | number>,
    test: (proxy: Proxy) => Promise<void>,
  ): Promise<void> {
    const proxy = await Proxy.start({ conf: { ...open, tcp_port: String(port), ...conf } });
    try {
      await test(proxy);
    } finally {
      await proxy.stop();
    }
  }

  /** The program ends at its start with these words. */
  async function expectNoStart(words: RegExp, options: ProxyOptions): Promise<void> {
    let said = '';
    try {
      await (await Proxy.start(options)).stop();
    } catch (error) {
      said = String(error);
    }
    expect(said).to.match(/virtproxyd ended at once/);
    expect(said).to.match(words);
  }

  it(`serve IPv4 and IPv6 by default${needsIpv6}`, async function () {
    if (!hasIpv6) this.skip();
    await serving({}, async () => {
      expect(await isServed('127.0.0.1', port)).to.be.true;
      expect(await isServed('::1', port)).to.be.true;
    });
  });

  it(`serve one IPv6 address alone${needsIpv6}`, async function () {
    if (!hasIpv6) this.skip();
    await serving({ listen_addr: '::1' }, async () => {
      expect(await isServed('::1', port)).to.be.true;
      expect(await isServed('127.0.0.1', port)).to.be.false;
    });
  });

  it('serve one IPv4 address alone', async () => {
    await serving({ listen_addr: '127.0.0.2' }, async () => {
      expect(await isServed('127.0.0.2', port)).to.be.true;
      expect(await isServed('127.0.0.1', port)).to.be.false;
    });
  });

  it(`serve all addresses of a name${needsRoot}${needsIpv6}`, async function () {
    if (!isRoot || !hasIpv6) this.skip();
    const directory = await freshDirectory();
    const [hosts, conf] = [join(directory, 'hosts'), join(directory, 'virtproxyd.conf')];
    await writeFile(hosts, '127.0.0.3 twofold.test\n::1 twofold.test\n');
    await writeFile(
      conf,
      `unix_sock_dir = "${directory}"\nlisten_tcp = 1\nauth_tcp = "none"\n` +
        `tcp_port = "${port}"\nlisten_addr = "twofold.test"\n`,
    );
    const program = fileURLToPath(new URL('../peers/run-proxy.js', import.meta.url));
    const script = 'mount --bind "$0" /etc/hosts && exec setpriv --pdeathsig KILL "$@"';
    const command = [process.execPath, program, '-f', conf, '-p', join(directory, 'pid')];
    const proxy = new ClientProcess('unshare', ['-m', 'sh', '-c', script, hosts, ...command]);
    try {
      await until(() => isServed('127.0.0.3', port), { what: 'the proxy' });
      expect(await isServed('::1', port)).to.be.true;
      expect(await isServed('127.0.0.1', port)).to.be.false;
    } finally {
      await proxy.kill('SIGTERM');
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('listen on the port of a service', async function () {
    const service = await freeService();
    if (service === null) this.skip();
    await serving({ tcp_port: service.name }, async () => {
      expect(await isServed('127.0.0.1', service.port)).to.be.true;
    });
  });

  it('keep max_queued_clients connections waiting', async () => {
    await serving({ max_queued_clients: 17, listen_addr: '127.0.0.1' }, async () => {
      const { stdout } = await run('ss', ['-Hltn', `sport = :${port}`]);
      expect(stdout.trim().split(/\s+/)[2]).to.equal('17');
    });
  });

  it(`send at once and notice hosts that are gone${needsRoot}`, async function () {
    if (!isRoot) this.skip();
    await serving({}, async (proxy) => {
      const client = await connectTcp(port);
      await client.call(procedure.authList);
      const { port: own } = client.socket.address() as AddressInfo;
      const outputs = await Promise.all(
        proxy.workers().map((pid) => python(optionsScript, [String(pid), String(own)])),
      );
      client.destroy();
      expect(outputs.map(({ stdout }) => stdout).join('')).to.equal('nodelay 1 keepalive 1\n');
    });
  });

  describe('stop the start with an error that names', () => {
    for (const [title, address, listenAddr] of [
      ['a busy port', '127.0.0.1', '127.0.0.1'],
      ['a port that is busy with IPv4 only', '0.0.0.0', undefined],
      ['a port that is busy with IPv6 only', '::', undefined],
    ] as const) {
      const unfit = address === '::' && !hasIpv6;
      it(`${title}${address === '::' ? needsIpv6 : ''}`, async function () {
        if (unfit) this.skip();
        const server = createServer().listen({ port, host: address, ipv6Only: true });
        await once(server, 'listening');
        const name = address === '::' ? `\\[::\\]:${port}` : `${address}:${port}`;
        await expectNoStart(
          new RegExp(`Cannot listen on '${name}': .*address already in use`, 'i'),
          {
            conf: {
              ...open,
              tcp_port: String(port),
              ...(listenAddr === undefined ? {} : { listen_addr: listenAddr }),
            },
          },
        );
        server.close();
      });
    }

    it(`a port that takes a privilege${needsPrivilege}`, async function () {
      if (needsPrivilege !== '') this.skip();
      const words = new RegExp(
        `Cannot listen on '127.0.0.1:${privilegedPort}': .*permission denied`,
        'i',
      );
      await expectNoStart(words, {
        user: account('nobody'),
        conf: { ...open, tcp_port: String(privilegedPort), listen_addr: '127.0.0.1' },
      });
    });

    it('an address that is not there', async () => {
      const words = new RegExp(
        `Cannot listen on '192.0.2.7:${port}': .*address not available`,
        'i',
      );
      await expectNoStart(words, {
        conf: { ...open, tcp_port: String(port), listen_addr: '192.0.2.7' },
      });
    });

    it('a name that has no address', async () => {
      await expectNoStart(/listen_addr: The name 'nowhere\.invalid' has no address/, {
        conf: { ...open, tcp_port: String(port), listen_addr: 'nowhere.invalid' },
      });
    });

    it('a service that there is not', async () => {
      await expectNoStart(/tcp_port: There is no service 'no-such-service'/, {
        conf: { ...open, tcp_port: 'no-such-service' },
      });
    });
  });
});
