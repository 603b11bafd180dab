import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import { makeStreamSocket } from '../../lib/native/unix-connection.js';
import { Epoll, readable, writable } from '../../lib/native/epoll.js';
import { NativeError } from '../../lib/native/error.js';
import { socketPair } from './sockets.js';

describe('native/epoll', () => {
  let epoll: Epoll;
  let near: number;
  let far: number;

  beforeEach(() => {
    epoll = new Epoll();
    [near, far] = socketPair();
  });
  afterEach(() => [near, far, epoll.fd].forEach((fd) => closeSync(fd)));

  const ready = (): [number, number][] => {
    const found: [number, number][] = [];
    epoll.poll((fd, what) => found.push([fd, what]));
    return found;
  };

  it('tells of what is looked for, as long as it is so', () => {
    epoll.watch(near, 0, readable);
    expect(ready()).to.deep.equal([]);
    writeSync(far, 'x');
    expect(ready()).to.deep.equal([[near, readable]]);
    expect(ready()).to.deep.equal([[near, readable]]);
    readSync(near, Buffer.alloc(8));
    expect(ready()).to.deep.equal([]);
  });

  it('looks for something else, and for nothing', () => {
    epoll.watch(near, 0, readable);
    epoll.watch(near, readable, readable | writable);
    expect(ready()).to.deep.equal([[near, writable]]);
    epoll.watch(near, readable | writable, 0);
    closeSync(far);
    expect(ready()).to.deep.equal([]);
    far = openSync('/dev/null', 'r');
  });

  it('tells of an end besides', () => {
    epoll.watch(near, 0, writable);
    closeSync(far);
    const [[fd, what] = []] = ready();
    expect(fd).to.equal(near);
    expect(what! & ~(readable | writable)).to.not.equal(0);
    far = openSync('/dev/null', 'r');
  });

  it('tells of many at once', () => {
    const pairs = Array.from({ length: 300 }, socketPair);
    for (const [one] of pairs) epoll.watch(one, 0, writable);
    const found = new Set([...ready(), ...ready()].map(([fd]) => fd));
    expect([...found]).to.have.members(pairs.map(([one]) => one));
    for (const fd of pairs.flat()) closeSync(fd);
  });

  it('can have another number', () => {
    epoll.watch(near, 0, writable);
    const fd = makeStreamSocket();
    epoll.moveTo(fd);
    expect(epoll.fd).to.equal(fd);
    expect(ready()).to.deep.equal([[near, writable]]);
  });

  it('refuses a descriptor that is none', () => {
    expect(() => epoll.watch(-1, 0, readable))
      .to.throw(NativeError, 'descriptor -1')
      .with.property('code', 'EBADF');
  });
});
