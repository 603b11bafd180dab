import { closeSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { acceptNext, listenOnPath } from '../../lib/native/listening-socket.js';
import { peerCredentials } from '../../lib/native/peer.js';
import { connectToPath } from '../../lib/native/unix-connection.js';
import { freshDirectory } from '../peers/waiting.js';

describe('connecting to a UNIX socket', () => {
  let directory: string;
  let open: number[];

  beforeEach(async () => {
    directory = await freshDirectory();
    open = [];
  });
  afterEach(async () => {
    for (const fd of open) closeSync(fd);
    await rm(directory, { recursive: true });
  });

  const listen = (backlog: number): string => {
    const path = join(directory, 'socket');
    open.push(listenOnPath(path, backlog));
    return path;
  };

  it('gives a connected socket, of this process', () => {
    const path = listen(10);
    open.push(connectToPath(path));
    const accepted = acceptNext(open[0]!)!;
    open.push(accepted);
    expect(peerCredentials(accepted).pid).to.equal(process.pid);
  });

  it('does not wait for one that accepts nobody', () => {
    const path = listen(0);
    open.push(connectToPath(path));
    const begun = performance.now();
    expect(() => connectToPath(path))
      .to.throw()
      .with.property('code', 'EAGAIN');
    expect(performance.now() - begun).to.be.below(1000);
  });

  it('says what is wrong, and leaves nothing open', () => {
    const file = join(directory, 'file');
    writeFileSync(file, '');
    const cases = [
      [join(directory, 'missing'), 'ENOENT'],
      [file, 'ECONNREFUSED'],
      [join(file, 'below'), 'ENOTDIR'],
      [join(directory, 'x'.repeat(200)), 'ENAMETOOLONG'],
    ] as const;
    const next = (): number => {
      const fd = listenOnPath(join(directory, `next${Math.random()}`), 1);
      closeSync(fd);
      return fd;
    };
    const before = next();
    for (const [path, code] of cases) {
      expect(() => connectToPath(path), path)
        .to.throw()
        .with.property('code', code);
    }
    expect(next()).to.equal(before);
  });
});
