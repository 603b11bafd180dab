import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { expect } from 'chai';
import { openSslConfiguration } from '../../lib/auth/session-tickets.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  type CertificateFiles,
} from '../peers/certificates.js';

const lacking = certificatesLacking();

const server = `
  const [, cert, key] = process.argv;
  const [read, tls] = [require('fs').readFileSync, require('tls')];
  const server = tls.createServer({ cert: read(cert), key: read(key) }, (socket) => socket.end('x'));
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
`;

describe(`openSslConfiguration${lacking === undefined ? '' : ` (skipped: ${lacking})`}`, () => {
  let directory: string;
  let files: CertificateFiles;

  before(function () {
    if (lacking !== undefined) this.skip();
    directory = mkdtempSync(join(tmpdir(), 'tickets-'));
    files = Authority.create(directory, 'authority').issue('server', { purpose: purpose.server });
  });
  after(() => {
    if (lacking === undefined) rmSync(directory, { recursive: true, force: true });
  });

  /** How many tickets a TLS 1.3 client gets from a server in a process with these options. */
  async function tickets(...options: string[]): Promise<number> {
    const child = spawn(process.execPath, [...options, '-e', server, files.cert, files.key], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const [port] = (await once(child.stdout, 'data')) as [Buffer];
      const client = connect({ port: Number(port), host: '127.0.0.1', rejectUnauthorized: false });
      let count = 0;
      client.on('session', () => (count += 1));
      await once(client, 'secureConnect');
      expect(client.getProtocol()).to.equal('TLSv1.3');
      client.resume();
      await once(client, 'close');
      return count;
    } finally {
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
  }

  it('keeps TLS 1.3 from sending session tickets', async () => {
    expect(await tickets()).to.be.greaterThan(0);
    expect(await tickets(`--openssl-config=${openSslConfiguration}`)).to.equal(0);
  });
});
