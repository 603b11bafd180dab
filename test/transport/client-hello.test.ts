import { once } from 'node:events';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { expect } from 'chai';
import { clientHello, HandshakeError, isWholeRecord } from '../../lib/transport/client-hello.js';

/** A handshake record of TLS 1.0, as a ClientHello of any version begins, with six bytes in it. */
const record = Buffer.from('160301000601000002aabb', 'hex');

describe('the first record of a TLS client', () => {
  let accepted: Socket;
  let other: Socket;
  let leaving: AbortController;

  beforeEach(async () => {
    const server = createServer({ pauseOnConnect: true, noDelay: true }).listen(0);
    await once(server, 'listening');
    const connection = once(server, 'connection') as Promise<[Socket]>;
    other = createConnection({ port: (server.address() as AddressInfo).port, noDelay: true });
    [accepted] = await connection;
    accepted.on('error', () => undefined);
    server.close();
    leaving = new AbortController();
  });
  afterEach(() => {
    accepted.destroy();
    other.destroy();
  });

  const arrival = (): Promise<void> => clientHello(accepted, leaving.signal);

  async function expectFailure(promise: Promise<void>, words: RegExp): Promise<void> {
    const error = await promise.then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).to.be.instanceOf(HandshakeError);
    expect(String(error)).to.match(words);
  }

  it('is awaited and put back, with what came behind it', async () => {
    const arrived = arrival();
    const sent = Buffer.concat([record, Buffer.from('more')]);
    for (const byte of sent.subarray(0, 8)) other.write(Buffer.of(byte));
    other.write(sent.subarray(8));
    await arrived;
    let read = Buffer.alloc(0);
    accepted.on('data', (chunk: Buffer) => (read = Buffer.concat([read, chunk])));
    accepted.resume();
    other.end();
    await once(accepted, 'close');
    expect(read).to.deep.equal(sent);
  });

  for (const [title, bytes] of [
    ['another protocol', 'GET / HTTP/1.1'],
    ['a record of another type', '\x17\x03\x01\x00\x01'],
    ['a version that there is not', '\x16\x02'],
    ['a record too long', '\x16\x03\x01\x40\x01'],
  ] as const) {
    it(`is not ${title}`, async () => {
      const failed = expectFailure(arrival(), /does not speak TLS/);
      other.write(Buffer.from(bytes, 'latin1'));
      await failed;
    });
  }

  it('does not come when the client leaves', async () => {
    const failed = expectFailure(arrival(), /the client left/);
    other.write(record.subarray(0, 9));
    other.end();
    await failed;
  });

  it('is not awaited longer than told', async () => {
    const arrived = arrival();
    leaving.abort(new HandshakeError('too late'));
    await expectFailure(arrived, /too late/);
  });

  it('is whole with its last byte, and what is no record is never awaited', () => {
    expect(isWholeRecord(record.subarray(0, 4))).to.be.false;
    expect(isWholeRecord(record.subarray(0, -1))).to.be.false;
    expect(isWholeRecord(record)).to.be.true;
    expect(isWholeRecord(Buffer.from('GET'))).to.be.true;
  });
});
