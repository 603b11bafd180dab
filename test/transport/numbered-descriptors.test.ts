import { closeSync, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import {
  receiveNumbered,
  sendNumbered,
  type NumberedDescriptor,
} from '../../lib/transport/numbered-descriptors.js';
import { SocketStream } from '../../lib/transport/socket-stream.js';
import { socketPair } from '../native/sockets.js';
import { run } from '../peers/clients.js';
import { until } from '../peers/waiting.js';

describe('numbered descriptors', () => {
  let near: Socket;
  let far: SocketStream;
  let arrived: NumberedDescriptor[];

  beforeEach(() => {
    const [one, other] = socketPair();
    near = new Socket({ fd: one });
    far = SocketStream.opened(other);
    arrived = [];
  });
  afterEach(() => {
    near.destroy();
    far.destroy();
    for (const { descriptor } of arrived) closeSync(descriptor);
  });

  const receive = (): void =>
    receiveNumbered(far, {
      arrived: (number, descriptor) => arrived.push({ number, descriptor }),
      lost: (number) => expect.fail(`${number} is lost`),
    });
  const opened = (number: number): NumberedDescriptor => ({
    number,
    descriptor: openSync('/dev/null', 'r'),
  });

  it('arrive with their numbers, several in one message, and stay open at the sender', async () => {
    receive();
    const messages = [[opened(1)], [opened(7), opened(2 ** 53 - 1), opened(0)], [opened(3)]];
    for (const message of messages) expect(sendNumbered(near, message)).to.equal(true);
    await until(() => arrived.length === 5, { what: 'five descriptors' });
    expect(arrived.map(({ number }) => number)).to.deep.equal([1, 7, 2 ** 53 - 1, 0, 3]);
    const device = fstatSync(arrived[0]!.descriptor).rdev;
    for (const { descriptor } of messages.flat()) closeSync(descriptor);
    for (const { descriptor } of arrived) expect(fstatSync(descriptor).rdev).to.equal(device);
  });

  it('are not taken while the receiver takes none, and then go on', async () => {
    const { descriptor } = opened(0);
    let sent = 0;
    while (sendNumbered(near, [{ number: sent, descriptor }])) sent++;
    expect(sent).to.be.above(10);
    receive();
    await until(() => arrived.length === sent, { what: 'what was sent' });
    expect(sendNumbered(near, [{ number: sent, descriptor }])).to.equal(true);
    await until(() => arrived.length === sent + 1, { what: 'the last one' });
    expect(arrived.at(-1)?.number).to.equal(sent);
    closeSync(descriptor);
  });

  it('are not sent when the receiver is gone', () => {
    far.destroy();
    const one = opened(1);
    expect(() => sendNumbered(near, [one])).to.throw(NativeError);
    closeSync(one.descriptor);
  });

  it('are told to be lost when the receiver may open no more files', async () => {
    const at = (file: string): string => new URL(file, import.meta.url).href;
    const script = `
      const { openSync } = await import('node:fs');
      const { Socket } = await import('node:net');
      const { socketPair } = await import('${at('../native/sockets.js')}');
      const numbered = await import('${at('../../lib/transport/numbered-descriptors.js')}');
      const { SocketStream } = await import('${at('../../lib/transport/socket-stream.js')}');
      const [one, other] = socketPair();
      const near = new Socket({ fd: one });
      const far = SocketStream.opened(other);
      const message = [5, 6].map((number) => ({ number, descriptor: openSync('/dev/null', 'r') }));
      numbered.sendNumbered(near, message);
      for (;;) try { openSync('/dev/null', 'r'); } catch { break; }
      const lost = [];
      numbered.receiveNumbered(far, {
        arrived: (number) => process.exit(1),
        lost: (number) => { lost.push(number); if (lost.length === 2) {
          console.log(lost.join()); process.exit(0);
        } },
      });
    `;
    const node = [process.execPath, '--input-type=module', '-e', script];
    const { stdout, stderr } = await run('prlimit', ['--nofile=64:64', ...node]);
    expect(stdout, stderr).to.equal('5,6\n');
  });
});
