import { closeSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { DatagramSocket } from '../../lib/native/datagram.js';
import { receive } from '../../lib/native/descriptor-passing.js';
import { NativeError } from '../../lib/native/error.js';
import { boundDatagramSocket } from './sockets.js';

describe('native/datagram', () => {
  let directory: string;
  let path: string;
  const open: number[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'datagram-'));
    path = join(directory, 'log');
  });
  afterEach(() => {
    for (const fd of open.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  const listen = (address: string): number => {
    const fd = boundDatagramSocket(address);
    open.push(fd);
    return fd;
  };
  const read = (fd: number): string | null => {
    const buffer = Buffer.alloc(1024);
    const received = receive(fd, buffer, 0, buffer.length);
    return received === 'would-block' ? null : buffer.toString('utf8', 0, received.bytes);
  };

  it('sends whole datagrams to a path and to an abstract name', () => {
    for (const address of [path, `@virtproxyd-test-${process.pid}`]) {
      const receiver = listen(address);
      const socket = new DatagramSocket(address);
      try {
        expect(socket.send(Buffer.from('READY=1'))).to.equal('sent');
        expect(socket.send(Buffer.from('STATUS=ü'))).to.equal('sent');
        expect([read(receiver), read(receiver), read(receiver)]).to.deep.equal([
          'READY=1',
          'STATUS=ü',
          null,
        ]);
      } finally {
        socket.close();
      }
    }
  });

  it('says would-block when the receiver does not keep up', () => {
    listen(path);
    const socket = new DatagramSocket(path);
    try {
      let sent = 0;
      let last;
      while ((last = socket.send(Buffer.from('x'))) === 'sent' && sent < 100_000) sent += 1;
      expect(last).to.equal('would-block');
      expect(sent).to.be.above(0);
    } finally {
      socket.close();
    }
  });

  it('finds a receiver that has been started late, and one that was restarted', () => {
    const socket = new DatagramSocket(path);
    try {
      const missing = socket.send(Buffer.from('x'));
      expect(missing).to.be.instanceOf(NativeError).with.property('code', 'ENOENT');
      expect((missing as NativeError).message).to.include(path);
      const first = listen(path);
      expect(socket.send(Buffer.from('one'))).to.equal('sent');
      closeSync(open.splice(open.indexOf(first), 1)[0]!);
      expect(socket.send(Buffer.from('lost'))).to.have.property('code', 'ECONNREFUSED');
      unlinkSync(path);
      const second = listen(path);
      expect(socket.send(Buffer.from('two'))).to.equal('sent');
      expect(read(second)).to.equal('two');
    } finally {
      socket.close();
    }
  });

  it('refuses what no datagram holds', () => {
    listen(path);
    const socket = new DatagramSocket(path);
    try {
      expect(socket.send(Buffer.alloc(4 * 1024 * 1024))).to.have.property('code', 'EMSGSIZE');
    } finally {
      socket.close();
    }
  });

  it('refuses an address that does not fit, and sending after close', () => {
    expect(() => new DatagramSocket(`/${'x'.repeat(107)}`))
      .to.throw(NativeError)
      .with.property('code', 'ENAMETOOLONG');
    const socket = new DatagramSocket(path);
    socket.close();
    socket.close();
    expect(socket.send(Buffer.from('x'))).to.have.property('code', 'EBADF');
  });
});
