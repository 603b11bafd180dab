import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { boundAddress } from '../../../lib/native/socket-address.js';
import { listenOnAddress, listenOnPath } from '../../../lib/native/listening-socket.js';
import type { InheritedSocket } from '../../../lib/primary/listeners/socket-activation.js';
import { boundDatagramSocket, socketPair } from '../../native/sockets.js';

const program = fileURLToPath(new URL('activated.js', import.meta.url));

interface Outcome {
  readonly sockets: readonly InheritedSocket[];
  readonly missing: readonly string[];
  readonly variables: readonly string[];
  readonly leaked: readonly string[];
  readonly code?: string;
  readonly error?: string;
}

describe('primary/socket-activation', () => {
  let directory: string;
  const open: number[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'activation-'));
  });
  afterEach(() => {
    for (const fd of open.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  const keep = (fd: number): number => {
    open.push(fd);
    return fd;
  };
  const unix = (name: string): number => keep(listenOnPath(join(directory, name), 5));
  const tcp = (address: string, port = 0): number => keep(listenOnAddress(address, port, 5));
  const portOf = (fd: number): number => {
    const address = boundAddress(fd);
    if (address === null || address.family === 'unix') throw new Error('no TCP socket');
    return address.port;
  };

  /** Starts the program with `fds` as its descriptors from 3 on. */
  async function activate(
    fds: readonly number[],
    env: Record<string, string> = {},
    ports = { tcp_port: '16509', tls_port: '16514' },
  ): Promise<Outcome> {
    const child: ChildProcess = spawn(process.execPath, [program, JSON.stringify(ports)], {
      stdio: ['ignore', 'pipe', 'inherit', ...fds],
      env: {
        PATH: process.env['PATH'],
        LISTEN_PID: 'self',
        LISTEN_FDS: String(fds.length),
        ...env,
      },
    });
    return JSON.parse(await text(child.stdout!)) as Outcome;
  }

  it('tells the sockets by their units, in any order, and hides them from programs started later', async () => {
    const units = {
      'virtproxyd-tls.socket': tcp('127.0.0.1'),
      'virtproxyd-ro.socket': unix('one'),
      'virtproxyd.socket': unix('two'),
      'virtproxyd-admin.socket': unix('three'),
      'virtproxyd-tcp.socket': tcp('127.0.0.1'),
    };
    const fds = Object.values(units);
    const outcome = await activate(fds, { LISTEN_FDNAMES: Object.keys(units).join(':') });
    expect(outcome).to.deep.equal({
      sockets: [
        { fd: 3, role: 'tls', name: `127.0.0.1:${portOf(fds[0]!)}` },
        { fd: 4, role: 'ro', name: join(directory, 'one') },
        { fd: 5, role: 'rw', name: join(directory, 'two') },
        { fd: 6, role: 'admin', name: join(directory, 'three') },
        { fd: 7, role: 'tcp', name: `127.0.0.1:${portOf(fds[4]!)}` },
      ],
      missing: [],
      variables: [],
      leaked: [],
    });
  });

  it("knows libvirtd's units too", async () => {
    const fds = [unix('a'), unix('b'), unix('c'), tcp('127.0.0.1'), tcp('127.0.0.1')];
    const LISTEN_FDNAMES =
      'libvirtd.socket:libvirtd-ro.socket:libvirtd-admin.socket:libvirtd-tcp.socket:libvirtd-tls.socket';
    const { sockets } = await activate(fds, { LISTEN_FDNAMES });
    expect(sockets.map(({ role }) => role)).to.deep.equal(['rw', 'ro', 'admin', 'tcp', 'tls']);
  });

  it('tells sockets without names by their addresses, several of one kind too', async () => {
    const fds = [
      tcp('127.0.0.1'),
      tcp('127.0.0.1'),
      unix('libvirt-admin-sock'),
      unix('libvirt-sock'),
      unix('libvirt-sock-ro'),
    ];
    const [tls = 0, plain = 0] = fds.map((fd, index) => (index < 2 ? portOf(fd) : 0));
    fds.push(tcp('::1', plain));
    const ports = { tcp_port: String(plain), tls_port: String(tls) };
    const { sockets } = await activate(fds, {}, ports);
    expect(sockets.map(({ role, name }) => [role, name])).to.deep.equal([
      ['tls', `127.0.0.1:${tls}`],
      ['tcp', `127.0.0.1:${plain}`],
      ['admin', join(directory, 'libvirt-admin-sock')],
      ['rw', join(directory, 'libvirt-sock')],
      ['ro', join(directory, 'libvirt-sock-ro')],
      ['tcp', `[::1]:${plain}`],
    ]);
    // A name that says nothing, as a unit of the administrator's own has, and names for some only.
    const named = await activate(fds, { LISTEN_FDNAMES: 'proxy.socket:unknown:::' }, ports);
    expect(named.sockets).to.deep.equal(sockets);
  });

  it('prefers the name to the address', async () => {
    const { sockets } = await activate([unix('libvirt-sock-ro')], {
      LISTEN_FDNAMES: 'virtproxyd.socket',
    });
    expect(sockets[0]?.role).to.equal('rw');
  });

  it('takes nothing that was passed to another process, and nothing where nothing was passed', async () => {
    for (const env of [{ LISTEN_PID: '1' }, { LISTEN_PID: '' }, { LISTEN_FDS: '0' }]) {
      const outcome = await activate([unix('libvirt-sock')], env);
      expect(outcome).to.deep.equal({ sockets: [], missing: [], variables: [], leaked: [] });
      closeSync(open.splice(0)[0]!);
      rmSync(join(directory, 'libvirt-sock'));
    }
  });

  it('names the UNIX sockets that are missing, and the unit to start', async () => {
    const { missing } = await activate([tcp('127.0.0.1'), unix('libvirt-sock-ro')], {
      LISTEN_FDNAMES: 'virtproxyd-tls.socket',
    });
    expect(missing).to.have.lengthOf(2);
    expect(missing[0]).to.match(/^No read-write socket .*start virtproxyd\.socket before/);
    expect(missing[1]).to.match(/^No admin socket .*start virtproxyd-admin\.socket before/);
  });

  describe('refuses, with a sentence that names it,', () => {
    const cases: [title: string, fd: () => number, name: string, sentence: RegExp][] = [
      [
        'a UNIX socket that nothing tells the use of',
        () => unix('other-sock'),
        '',
        /^Descriptor 3, passed .* listens on '.*other-sock', .*virtproxyd\.socket/,
      ],
      [
        'a TCP socket that nothing tells the use of',
        () => tcp('127.0.0.1'),
        'mine.socket',
        /^Descriptor 3 \('mine\.socket'\), .* listens on '127\.0\.0\.1:\d+', /,
      ],
      [
        'a TCP socket in place of a UNIX one, whose clients would count as local',
        () => tcp('127.0.0.1'),
        'virtproxyd.socket',
        /read-write socket has to be a UNIX socket: correct its ListenStream=/,
      ],
      [
        'a UNIX socket in place of a TCP one',
        () => unix('libvirt-sock'),
        'virtproxyd-tls.socket',
        /TLS socket has to be a TCP socket/,
      ],
      [
        'an accepted connection',
        () => {
          const [one, other] = socketPair();
          keep(other);
          return keep(one);
        },
        'virtproxyd.socket',
        /is no listening UNIX or TCP socket: .*Accept=no/,
      ],
      [
        'a datagram socket',
        () => keep(boundDatagramSocket(join(directory, 'libvirt-sock'))),
        'virtproxyd.socket',
        /is no listening UNIX or TCP socket/,
      ],
      [
        'a file',
        () => keep(openSync('/dev/null', 'r')),
        'virtproxyd.socket',
        /is of no use: getsockopt.*ENOTSOCK/,
      ],
    ];
    for (const [title, fd, name, sentence] of cases) {
      it(title, async () => {
        const { code, error } = await activate([fd()], { LISTEN_FDNAMES: name });
        expect(error).to.match(sentence);
        expect(code).to.equal('ACTIVATION');
      });
    }

    it('a descriptor that is not open', async () => {
      const { error } = await activate([unix('libvirt-sock')], { LISTEN_FDS: '60' });
      expect(error).to.match(/^Descriptor \d+, passed .* is of no use/);
    });

    it('a count that is none', async () => {
      for (const count of ['many', '-1', '100000', '']) {
        const { error } = await activate([], { LISTEN_FDS: count });
        expect(error).to.include(`LISTEN_FDS, is '${count}'`);
      }
    });
  });
});
