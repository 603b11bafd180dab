import { expect } from 'chai';
import { program } from '../../../lib/rpc/frame.js';
import { absent, CallTable } from '../../../lib/worker/daemon/call-table.js';

const { remote, qemu } = program;
const number = 59;

/** Bytes that the table keeps at most. */
const room = 64 * 1024;

describe('the calls that a daemon has not answered', () => {
  let table: CallTable;

  beforeEach(() => (table = new CallTable()));

  /**
   * Adds a call and keeps a frame of that many bytes, all of them its serial; false when there was
   * no room.
   */
  function addKept(serial: number, length: number, repeats?: number): boolean {
    table.add(remote, number, serial, serial);
    return table.keep(Buffer.alloc(length, serial), 0, length, repeats);
  }

  /** What is left, as `serial: bytes of its frame`; each frame must be whole and its own. */
  function lengths(): [number, number | null][] {
    return table.takeAll().map(({ serial, frame }) => {
      expect(frame?.every((byte) => byte === serial) ?? true, `frame ${serial}`).to.be.true;
      return [serial, frame?.length ?? null];
    });
  }

  it('are known by program, procedure and serial', () => {
    table.add(remote, number, 1, 0);
    expect(table.has(remote, number, 1)).to.be.true;
    expect(table.has(remote, number, 2)).to.be.false;
    expect(table.has(remote, number + 1, 1)).to.be.false;
    expect(table.has(qemu, number, 1)).to.be.false;
  });

  it('give their time once, in whatever order they are answered', () => {
    for (const serial of [1, 2, 3]) table.add(remote, number, serial, serial * 10);
    expect(table.take(remote, number, 2)).to.equal(20);
    expect(table.take(remote, number, 2)).to.equal(absent);
    expect(table.take(remote, number, 3)).to.equal(30);
    expect(table.take(remote, number, 1)).to.equal(10);
    expect(table.size).to.equal(0);
  });

  it('of one number are answered oldest first', () => {
    table.add(remote, number, 1, 10);
    table.add(remote, number, 1, 20);
    expect(table.take(remote, number, 1)).to.equal(10);
    expect(table.take(remote, number, 1)).to.equal(20);
  });

  it('are taken all in the order in which they were added, with time, frame and repeats', () => {
    addKept(3, 40, 2);
    table.add(qemu, 1, 1, 7);
    addKept(2, 50);
    const taken = table.takeAll();
    expect(taken).to.eql([
      {
        program: remote,
        procedure: number,
        serial: 3,
        time: 3,
        frame: Buffer.alloc(40, 3),
        repeats: 2,
      },
      { program: qemu, procedure: 1, serial: 1, time: 7, frame: null, repeats: 0 },
      {
        program: remote,
        procedure: number,
        serial: 2,
        time: 2,
        frame: Buffer.alloc(50, 2),
        repeats: 0,
      },
    ]);
    expect(table.size).to.equal(0);
    expect(table.takeAll()).to.eql([]);
  });

  it('keep the part of a buffer that is the frame', () => {
    table.add(remote, number, 1, 0);
    const bytes = Buffer.from([9, 9, 1, 1, 1, 9]);
    table.keep(bytes, 2, 5);
    bytes.fill(0);
    expect(lengths()).to.eql([[1, 3]]);
  });

  it('keep frames whole while their memory grows', () => {
    for (let serial = 1; serial <= 40; serial++) expect(addKept(serial, 500)).to.be.true;
    expect(lengths()).to.eql(Array.from({ length: 40 }, (_, at) => [at + 1, 500]));
  });

  it('keep frames whole when those answered in between make room', () => {
    for (let serial = 1; serial <= 64; serial++) addKept(serial, 1024);
    for (let serial = 1; serial <= 64; serial += 2) table.take(remote, number, serial);
    expect(addKept(100, 30 * 1024), 'room of those answered').to.be.true;
    const even = Array.from({ length: 32 }, (_, at) => [2 * at + 2, 1024]);
    expect(lengths()).to.eql([...even, [100, 30 * 1024]]);
  });

  it('are not kept beyond the limit, and are known nevertheless', () => {
    expect(addKept(1, room - 100)).to.be.true;
    expect(addKept(2, 101)).to.be.false;
    expect(addKept(3, 100), 'what just fits').to.be.true;
    expect(lengths()).to.eql([
      [1, room - 100],
      [2, null],
      [3, 100],
    ]);
  });

  it('have all the room again once all are answered', () => {
    for (let round = 0; round < 3; round++) {
      expect(addKept(1, room), `round ${round}`).to.be.true;
      expect(addKept(2, 1)).to.be.false;
      table.take(remote, number, 1);
      table.take(remote, number, 2);
    }
    expect(addKept(5, room)).to.be.true;
    expect(lengths()).to.eql([[5, room]]);
    expect(addKept(6, room)).to.be.true;
  });

  it('are not lent out: what was taken stays as it was', () => {
    addKept(1, 100);
    const [taken] = table.takeAll();
    addKept(2, 100);
    expect(taken?.frame).to.eql(Buffer.alloc(100, 1));
  });
});
