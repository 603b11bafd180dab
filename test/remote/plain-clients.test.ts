import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { certificatesLacking } from '../peers/certificates.js';
import { python, virsh } from '../peers/clients.js';
import { openConnection } from '../peers/connected-client.js';
import { poolXml, volumeXml } from '../peers/guest.js';
import { whyNoHost } from '../peers/modular-host.js';
import { freePorts } from '../peers/ports.js';
import { Proxy } from '../peers/proxy.js';
import { SaslAccounts, saslAccountsLacking } from '../peers/sasl-accounts.js';
import { sharedHost } from '../peers/shared-host.js';
import { TlsPki } from '../peers/tls-pki.js';
import { freshDirectory } from '../peers/waiting.js';

const obstacle = whyNoHost() ?? certificatesLacking() ?? saslAccountsLacking();

const volumeBytes = 8 * 1024 * 1024;

/**
 * Gives scripts `connection`, `download()` and `upload(number)`, which return how many bytes went.
 */
const prelude = `
import libvirt, threading
${openConnection}
pool = connection.storagePoolLookupByName("plain-clients")
def download():
    stream = connection.newStream()
    pool.storageVolLookupByName("down").download(stream, 0, 0)
    sizes = []
    stream.recvAll(lambda stream, data, opaque: sizes.append(len(data)), None)
    stream.finish()
    return sum(sizes)
def upload(number):
    stream = connection.newStream()
    pool.storageVolLookupByName("up%d" % number).upload(stream, 0, ${volumeBytes})
    left = [${volumeBytes}]
    def source(stream, wanted, opaque):
        part = min(wanted, left[0])
        left[0] -= part
        return b"u" * part
    stream.sendAll(source, None)
    stream.finish()
    return ${volumeBytes} - left[0]
def at_once(*works):
    results = []
    threads = [threading.Thread(target=lambda work=work: results.append(work())) for work in works]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return results
`;

/**
 * What libvirt's client does with its socket itself: an event loop or a keepalive timer would wake
 * one up that sleeps on a frame.
 */
describe(`clients without event loop and keepalive${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, function () {
  this.timeout(60_000);
  let directory: string;
  let proxy: Proxy;
  let pki: TlsPki;
  let accounts: SaslAccounts;
  let tcp: number;

  before(async function () {
    if (obstacle !== undefined) this.skip();
    const host = await sharedHost();
    directory = await freshDirectory();
    pki = await TlsPki.create(directory);
    [tcp] = (await freePorts(1)) as [number];
    accounts = await SaslAccounts.create({
      directory,
      mechanisms: 'DIGEST-MD5',
      users: { fred: 'secret' },
    });
    proxy = await Proxy.start({
      conf: { ...pki.conf, listen_tcp: 1, tcp_port: String(tcp) },
      cluster: host.routesIni(),
      env: accounts.serverEnv,
    });
    const target = join(directory, 'pool');
    await mkdir(target);
    await ask(['pool-create', '/dev/stdin'], poolXml('plain-clients', target));
    for (const name of ['down', 'up0', 'up1']) {
      await ask(['vol-create', 'plain-clients', '/dev/stdin'], volumeXml(name, volumeBytes));
    }
  });
  after(async () => {
    if (obstacle !== undefined) return;
    await ask(['pool-destroy', 'plain-clients'], '');
    await proxy.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function ask(command: readonly string[], input: string): Promise<void> {
    const { code, stderr } = await virsh(proxy.uri(), command, { input });
    expect(code, stderr).to.equal(0);
  }

  for (const [over, uri] of [
    ['UNIX', () => proxy.uri()],
    ['TLS', () => pki.uri()],
    ['a SASL layer', () => `qemu+tcp://localhost:${tcp}/system`],
  ] as const) {
    describe(`over ${over}`, () => {
      async function says(script: string): Promise<string> {
        const env = await accounts.clientEnv('fred');
        const { stdout, stderr } = await python(prelude + script, [uri()], { env });
        expect(stderr).to.equal('');
        return stdout.trim();
      }

      it('download 20 volumes one after the other', async () => {
        const said = await says('print(sum(download() for _ in range(20)))');
        expect(said).to.equal(String(20 * volumeBytes));
      });

      it('upload and download at once', async () => {
        const script = `
print(sum(at_once(lambda: upload(0), download, lambda: upload(1), download)))
print(sum(at_once(download, lambda: upload(1), download, lambda: upload(0))))
`;
        const once = String(4 * volumeBytes);
        expect(await says(script)).to.equal(`${once}\n${once}`);
      });

      it('make 8 000 calls from 8 threads', async () => {
        const script = `
def calls():
    return [connection.numOfNetworks() for _ in range(1000)]
print([len(answers) for answers in at_once(*[calls] * 8)])
`;
        expect(await says(script)).to.equal(`[${Array(8).fill(1000).join(', ')}]`);
      });
    });
  }
});
