import { closeSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import { acceptNext, listenOnAddress } from '../../lib/native/listening-socket.js';
import { boundAddress, peerAddress } from '../../lib/native/socket-address.js';
import { freePorts } from '../peers/ports.js';
import { until } from '../peers/waiting.js';
import { socketPair } from './sockets.js';

describe('the addresses of a connection', () => {
  for (const [family, address] of [
    ['ipv4', '127.0.0.1'],
    ['ipv6', '::1'],
  ] as const) {
    it(`are those of both ends over ${family}`, async () => {
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

  it('are none of TCP on a UNIX socket', () => {
    const pair = socketPair();
    try {
      expect(peerAddress(pair[0])).to.be.null;
      expect(boundAddress(pair[0])).to.deep.equal({ family: 'unix', path: '' });
    } finally {
      for (const fd of pair) closeSync(fd);
    }
  });

  it('are not there where nobody is at the other end', async () => {
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
});
