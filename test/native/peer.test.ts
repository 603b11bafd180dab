import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { NativeError } from '../../lib/native/error.js';
import { peerCredentials, peerGroups, peerSecurityLabel } from '../../lib/native/peer.js';
import { socketPair } from './sockets.js';

describe('native/peer', () => {
  it('names the process at the other end of a connection', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'peer-'));
    const server = createServer();
    server.listen(join(directory, 'socket'));
    await once(server, 'listening');
    const client = createConnection(join(directory, 'socket'));
    const [accepted] = (await once(server, 'connection')) as [Socket];
    try {
      const fd = (accepted as unknown as { _handle: { fd: number } })._handle.fd;
      expect(peerCredentials(fd)).to.deep.equal({
        pid: process.pid,
        uid: process.getuid!(),
        gid: process.getgid!(),
      });
      // getgroups(2) leaves open whether the effective group is among them; Node.js adds it.
      expect([...peerGroups(fd), process.getegid!()]).to.include.members(process.getgroups!());
      expect(process.getgroups!()).to.include.members([...peerGroups(fd)]);
    } finally {
      client.destroy();
      accepted.destroy();
      server.close();
      await rm(directory, { recursive: true });
    }
  });

  it('gives the label the kernel gives, or null when it labels no sockets', () => {
    const pair = socketPair();
    try {
      const label = peerSecurityLabel(pair[0]);
      const modules = existsSync('/sys/kernel/security/lsm')
        ? readFileSync('/sys/kernel/security/lsm', 'utf8')
        : '';
      if (/selinux|smack/.test(modules)) expect(label).to.be.a('string').that.is.not.empty;
      else expect(label === null || !label.includes('\0')).to.be.true;
    } finally {
      pair.forEach((fd) => closeSync(fd));
    }
  });

  it('names errno and call of a refusal', () => {
    const file = openSync('/dev/null', 'r');
    try {
      for (const call of [peerCredentials, peerGroups, peerSecurityLabel]) {
        expect(() => call(file))
          .to.throw(NativeError, `descriptor ${file}`)
          .with.property('code', 'ENOTSOCK');
        expect(() => call(-1))
          .to.throw(NativeError)
          .with.property('code', 'EBADF');
      }
      expect(() => peerCredentials(file))
        .to.throw(NativeError)
        .with.property('call', 'getsockopt(SO_PEERCRED)');
    } finally {
      closeSync(file);
    }
  });
});
