import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { expect } from 'chai';
import { encodeInt, encodeString } from '../../lib/rpc/session-messages.js';
import { XdrWriter } from '../../lib/rpc/xdr-writer.js';
import { keepalive, messageType, program, status } from '../../lib/rpc/frame.js';
import { certificatesLacking } from '../peers/certificates.js';
import { python } from '../peers/clients.js';
import type { FrameSocket } from '../peers/frame-socket.js';
import { frameOf } from '../peers/frame-socket.js';
import { Proxy } from '../peers/proxy.js';
import { RawClient } from '../peers/raw-client.js';
import { enterTls } from '../peers/remote-client.js';
import { StandInDaemon } from '../peers/stand-in-daemon.js';
import { TlsPki } from '../peers/tls-pki.js';
import { freshDirectory, until } from '../peers/waiting.js';

const lacking = certificatesLacking();

const call = { hostname: 59, download: 209, registerEvents: 316, lifecycleEvent: 318 };

/**
 * How many frames have bytes in each record; the records hold whole frames from the first byte on.
 */
function framesPerRecord(records: readonly Buffer[]): number[] {
  let left = 0;
  return records.map((record) => {
    let frames = left > 0 ? 1 : 0;
    let at = Math.min(left, record.length);
    left -= at;
    for (; at < record.length; frames++) {
      const length = record.readUInt32BE(at);
      const here = Math.min(length, record.length - at);
      left = length - here;
      at += here;
    }
    return frames;
  });
}

/** A DOMAIN_EVENT_CALLBACK_LIFECYCLE of a guest whose id is the event's number. */
function lifecycleEvent(callbackId: number, number: number): Buffer {
  const name = new XdrWriter().int(callbackId).string('guest').finish();
  const uuid = Buffer.alloc(16, 7);
  const rest = new XdrWriter().int(number).int(0).int(0).finish();
  const header = { procedure: call.lifecycleEvent, type: messageType.message };
  return frameOf(header, Buffer.concat([name, uuid, rest]));
}

describe(`the records of a TLS connection${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let directory: string;
  let pki: TlsPki;
  let daemon: StandInDaemon;
  let proxy: Proxy;

  before(async function () {
    if (lacking !== undefined) this.skip();
    directory = await freshDirectory();
    pki = await TlsPki.create(directory);
    daemon = await StandInDaemon.listen(join(directory, 'virtqemud-sock'));
    proxy = await Proxy.start({
      conf: { ...pki.conf, max_client_requests: 100 },
      cluster: `[routes]\nqemu = ${daemon.path}\n[cluster]\nworkers = 1\n`,
    });
  });
  after(async () => {
    if (lacking !== undefined) return;
    await proxy.stop();
    await daemon.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /**
   * A client that has opened a connection, with the plaintext of every record: node reads one at a
   * time.
   */
  async function recorded(): Promise<{
    client: RawClient<TLSSocket>;
    link: FrameSocket;
    records: Buffer[];
  }> {
    const { ca, client: certificate, port } = pki;
    const socket = await enterTls({ port, ca: ca.cert, certificate });
    const records: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => records.push(chunk));
    const client = new RawClient(socket);
    client.resume();
    const index = daemon.connections.length;
    await client.openUri('qemu:///system');
    return { client, link: await daemon.connection(index), records };
  }

  /**
   * Frames of every kind that a daemon sends: replies and errors, small and large, events, a
   * stream.
   */
  async function burst(client: RawClient<TLSSocket>, link: FrameSocket): Promise<Buffer[]> {
    const serials = Array.from({ length: 20 }, () => client.begin(call.hostname));
    const download = client.begin(call.download);
    await until(() => link.frames.length === 21, { what: 'the calls' });
    const stream = (payload: Buffer, state: number = status.continue): Buffer => {
      const header = { procedure: call.download, type: messageType.stream, serial: download };
      return frameOf({ ...header, status: state }, payload);
    };
    return [
      ...serials.flatMap((serial, index) => [
        frameOf(
          { procedure: call.hostname, type: messageType.reply, serial, status: index % 2 },
          Buffer.alloc(index % 5 === 4 ? 300_000 : 40 * index),
        ),
        ...Array.from({ length: 10 }, (_, number) => lifecycleEvent(1, number)),
      ]),
      frameOf({ procedure: call.download, type: messageType.reply, serial: download }),
      ...[1, 20_000, 262_120, 600_000, 8].map((size) => stream(Buffer.alloc(size))),
      stream(Buffer.alloc(0), status.ok),
    ];
  }

  /** A PING and calls that the proxy itself answers with errors. */
  const ownAnswers = (index: number): Buffer[] => [
    frameOf({
      program: program.keepalive,
      procedure: keepalive.ping,
      type: messageType.message,
    }),
    frameOf({ procedure: call.hostname, serial: 5000 + index, status: status.error }),
    frameOf({ program: 77, procedure: 1, serial: 6000 + index }),
  ];

  it('hold bytes of one frame each, whatever comes in a burst', async () => {
    const { client, link, records } = await recorded();
    const frames = await burst(client, link);
    link.send(...frames);
    for (let index = 0; index < 20; index++) client.send(...ownAnswers(index));
    const expected = frames.length + 60;
    await until(() => client.frames.length === expected, { what: `${expected} frames` });
    expect(Math.max(...framesPerRecord(records))).to.equal(1);
    client.destroy();
  });

  it('hold bytes of one frame each when the client was behind', async () => {
    const { client, link, records } = await recorded();
    const first = await burst(client, link);
    client.pause();
    let sent = first.length;
    link.send(...first);
    for (let number = 0; sent < 20_000; number++, sent++) link.send(lifecycleEvent(1, number));
    await until(() => link.socket.writableLength === 0, { what: 'the proxy to take what it will' });
    client.send(...ownAnswers(0));
    client.resume();
    await until(() => client.frames.length === sent + 3, { what: `${sent + 3} frames` });
    expect(Math.max(...framesPerRecord(records))).to.equal(1);
    client.destroy();
  });

  it('let a client without keepalive have 1 000 events right behind a reply', async () => {
    const callbackId = 4;
    daemon.answer(call.registerEvents, () => encodeInt(callbackId));
    const index = daemon.connections.length;
    const script = `
import libvirt, sys, threading
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
done = threading.Event()
seen = []
def lifecycle(connection, domain, event, detail, opaque):
    seen.append(domain.ID())
    if len(seen) == 1000: done.set()
connection = libvirt.open(sys.argv[1])
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
print(connection.getHostname())
done.wait(10)
print(seen == list(range(1000)), len(seen))
`;
    const finished = python(script, [pki.uri()]);
    const link = await daemon.connection(index);
    const { serial } = await link.takeCall(call.hostname);
    const header = { procedure: call.hostname, type: messageType.reply, serial };
    link.send(
      frameOf(header, encodeString('burst.example')),
      ...Array.from({ length: 1000 }, (_, number) => lifecycleEvent(callbackId, number)),
    );
    const { stdout, stderr } = await finished;
    expect(stdout, stderr).to.equal('burst.example\nTrue 1000\n');
  });
});
