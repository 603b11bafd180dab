import { closeSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { expect } from 'chai';
import { acceptNext, hasWaiting, listenOnAddress } from '../../lib/native/listening-socket.js';
import { freePorts } from '../peers/ports.js';
import { until } from '../peers/waiting.js';

describe('a listening socket', () => {
  it('gives the connections that wait, one after the other, and then none', async () => {
    const [port] = (await freePorts(1)) as [number];
    const listening = listenOnAddress('127.0.0.1', port, 10);
    const peers: Socket[] = [];
    const accepted: number[] = [];
    try {
      expect(hasWaiting(listening)).to.be.false;
      expect(acceptNext(listening)).to.be.null;
      for (let count = 0; count < 3; count++) {
        peers.push(createConnection({ host: '127.0.0.1', port }));
      }
      const take = (): boolean => {
        const fd = acceptNext(listening);
        if (fd !== null) accepted.push(fd);
        return accepted.length === 3;
      };
      await until(take, { what: 'three connections' });
      expect(new Set(accepted).size).to.equal(3);
      expect(acceptNext(listening)).to.be.null;
    } finally {
      for (const fd of [listening, ...accepted]) closeSync(fd);
      for (const peer of peers) peer.destroy();
    }
  });
});
