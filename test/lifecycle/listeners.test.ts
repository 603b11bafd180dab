import { expect } from 'chai';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { groupId } from '../../lib/native/accounts.js';
import { status } from '../../lib/rpc/frame.js';
import { freePorts } from '../peers/ports.js';
import { RawClient } from '../peers/raw-client.js';
import { connectTcp } from '../peers/remote-client.js';
import { stressCall } from '../peers/stress-daemon.js';
import { lossesOf, Service, tcpEntrance } from './service.js';

const uri = 'qemu:///system';

async function serves(connecting: Promise<RawClient>): Promise<boolean> {
  const client = await connecting;
  const opened = await client.openUri(uri);
  const reply = await client.call(stressCall.hostname);
  client.destroy();
  return opened.status === status.ok && reply.status === status.ok;
}

/** Why no connection is to be had. */
async function refusal(connecting: Promise<RawClient>): Promise<string | undefined> {
  try {
    (await connecting).destroy();
    return 'none';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

describe('a reload that changes the listening sockets', function () {
  this.timeout(60_000);
  let service: Service;

  let stop: AbortController;

  beforeEach(() => {
    stop = new AbortController();
  });

  afterEach(async () => {
    stop.abort();
    await service.end();
  });

  /**
   * Connects to several ports all the time. Returns how to end it, and what was ever open at the
   * same moment.
   */
  function watch(ports: readonly number[]): () => Promise<string[]> {
    const seen = new Set<string>();
    const watching = (async (): Promise<void> => {
      while (!stop.signal.aborted) {
        const codes = await Promise.all(ports.map((port) => refusal(connectTcp(port))));
        seen.add(codes.map((code) => (code === 'none' ? 'open' : (code ?? 'failed'))).join(' '));
      }
    })();
    return async () => {
      stop.abort();
      await watching;
      return [...seen];
    };
  }

  it('opens new ports before old ones close, and keeps the clients of those', async () => {
    service = await Service.start({ remote: true });
    const [fresh] = (await freePorts(1)) as [number];
    const old = Number(service.conf['tcp_port']);
    const staying = await connectTcp(old);
    await staying.openUri(uri);
    const stress = await service.stress({
      entrances: service.entrances.filter(({ name }) => name !== 'tcp'),
    });
    const end = watch([old, fresh]);
    await service.configure({ tcp_port: String(fresh) });
    await service.reload();
    expect(await serves(connectTcp(fresh))).to.be.true;
    expect(await refusal(connectTcp(old))).to.equal('ECONNREFUSED');
    expect(await end()).to.not.include('ECONNREFUSED ECONNREFUSED');
    expect((await staying.call(stressCall.hostname)).status).to.equal(status.ok);
    staying.destroy();
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
  });

  it('narrows all addresses to one and back on the same port, never closed for a moment', async () => {
    const [port] = (await freePorts(1)) as [number];
    const tcp = { listen_tcp: 1, auth_tcp: 'none', tcp_port: String(port) };
    service = await Service.start({ conf: tcp });
    const stress = await service.stress({ entrances: [tcpEntrance(port)] });
    await service.configure({ listen_addr: '127.0.0.1' });
    await service.reload();
    expect(service.logged(/no longer listening on 0.0.0.0:/)).to.have.length(1);
    await stress.flows();
    await service.configure({});
    await service.reload();
    expect(service.logged(/no longer listening on 127.0.0.1:/)).to.have.length(1);
    await stress.flows();
    expect(lossesOf(await stress.stop())).to.deep.equal([]);
  });

  it('applies mode and group, and takes them back', async () => {
    const group = groupId('daemon')!;
    service = await Service.start();
    const { socket, readOnlySocket } = service.proxy;
    const inode = statSync(socket).ino;
    await service.configure({
      unix_sock_group: 'daemon',
      unix_sock_rw_perms: '0770',
      unix_sock_ro_perms: '0711',
    });
    await service.reload();
    expect(statSync(socket)).to.include({ gid: group, ino: inode });
    expect(statSync(readOnlySocket)).to.include({ gid: group });
    expect(statSync(socket).mode & 0o777).to.equal(0o770);
    expect(statSync(readOnlySocket).mode & 0o777).to.equal(0o711);
    await service.configure({});
    await service.reload();
    expect(statSync(socket)).to.include({ gid: process.getegid?.(), ino: inode });
    expect(statSync(socket).mode & 0o777).to.equal(0o700);
    expect(statSync(readOnlySocket).mode & 0o777).to.equal(0o777);
  });

  it('moves the sockets to another directory', async () => {
    service = await Service.start();
    const { socket } = service.proxy;
    const staying = await service.proxy.open();
    const elsewhere = join(service.directory, 'new/place');
    await service.configure({ unix_sock_dir: elsewhere });
    await service.reload();
    expect(await serves(RawClient.connect(join(elsewhere, 'libvirt-sock')))).to.be.true;
    expect(existsSync(socket)).to.be.false;
    expect((await staying.call(stressCall.hostname)).status).to.equal(status.ok);
    staying.destroy();
    await service.configure({});
    await service.reload();
    expect(existsSync(join(elsewhere, 'libvirt-sock'))).to.be.false;
    expect(await serves(RawClient.connect(socket))).to.be.true;
  });

  it('serves whoever waits in the queue of a socket that stays, and of one that goes', async () => {
    service = await Service.start({ remote: true });
    const [fresh] = (await freePorts(1)) as [number];
    await service.configure({ tcp_port: String(fresh), max_queued_clients: 50 });
    // A process that does not run accepts nothing.
    service.signal('SIGSTOP');
    const clients = await Promise.all(
      Array.from({ length: 10 }, async (_, index) =>
        index % 2 === 0
          ? RawClient.connect(service.proxy.socket)
          : connectTcp(Number(service.conf['tcp_port'])),
      ),
    );
    service.signal('SIGHUP');
    service.signal('SIGCONT');
    await service.says(/reloaded: generation 2 serves/);
    for (const client of clients) {
      expect((await client.openUri(uri)).status).to.equal(status.ok);
      client.destroy();
    }
  });
});
