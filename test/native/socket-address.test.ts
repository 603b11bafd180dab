import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import { acceptNext, listenOnAddress, listenOnPath } from '../../lib/native/listening-socket.js';
import { boundAddress, peerAddress } from '../../lib/native/socket-address.js';
import { freePorts } from '../peers/ports.js';
import { until } from '../peers/waiting.js';
import { boundDatagramSocket, socketPair } from './sockets.js';

describe('native/socket-address', () => {
  for (const [family, address] of [
    ['ipv4', '127.0.0.1'],
    ['ipv6', '::1'],
  ] as const) {
    it(`tells both ends of a connection over ${family}`, async () => {
      const [port] = (await freePorts(1)) as [number];
      const listening = listenOnAddress(address, port, 10);
      let peer: Socket | null = null;
      let accepted: number | null = null;
      try {
        peer = createConnection({ host: address, port });
        await until(() => (accepted = acceptNext(listening)) !== null, { what: 'a connection' });
        expect(boundAddress(accepted!)).to.deep.equal({ family, address, port });
        expect(peerAddress(accepted!)).to.deep.equal({ family, address, port: peer.localPort });
      } finally {
        peer?.destroy();
        for (const fd of [listening, accepted]) if (fd !== null) closeSync(fd);
      }
    });
  }

  it('has none of TCP for a UNIX socket', () => {
    const pair = socketPair();
    try {
      expect(peerAddress(pair[0])).to.be.null;
      expect(boundAddress(pair[0])).to.deep.equal({ family: 'unix', path: '' });
    } finally {
      for (const fd of pair) closeSync(fd);
    }
  });

  it('fails where nobody is at the other end', async () => {
    const [port] = (await freePorts(1)) as [number];
    const listening = listenOnAddress('127.0.0.1', port, 10);
    try {
      expect(() => peerAddress(listening))
        .to.throw(NativeError)
        .with.property('code', 'ENOTCONN');
    } finally {
      closeSync(listening);
    }
  });

  it('reads the address of every kind of socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'bound-'));
    const path = join(directory, `s${'x'.repeat(100 - directory.length)}`);
    const fds = [
      listenOnPath(path, 1),
      boundDatagramSocket(`@virtproxyd-bound-${process.pid}`),
      ...socketPair(),
      listenOnAddress('127.0.0.1', 0, 1),
      listenOnAddress('::', 0, 1),
    ];
    let client: Socket | null = null;
    try {
      const addresses = fds.map((fd) => boundAddress(fd));
      expect(addresses.slice(0, 4)).to.deep.equal([
        { family: 'unix', path },
        { family: 'unix', path: `@virtproxyd-bound-${process.pid}` },
        { family: 'unix', path: '' },
        { family: 'unix', path: '' },
      ]);
      expect(addresses[4]).to.include({ family: 'ipv4', address: '127.0.0.1' });
      expect(addresses[5]).to.include({ family: 'ipv6', address: '::' });
      // The port is the one that others reach.
      const { port } = addresses[4] as { port: number };
      client = createConnection({ host: '127.0.0.1', port });
      await new Promise((resolve, reject) => {
        client?.once('connect', resolve).once('error', reject);
      });
    } finally {
      client?.destroy();
      for (const fd of fds) closeSync(fd);
      rmSync(directory, { recursive: true });
    }
  });
});
