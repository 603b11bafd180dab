import { expect } from 'chai';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Authority, purpose, validity } from '../peers/certificates.js';
import type { Stress } from '../peers/stress.js';
import { lossesOf, Service, type Credentials } from './service.js';

type Spoiled = Parameters<Service['configure']>[0];

/** How a reload is made to fail: by keys, by lines of [cluster], or by hand. */
interface Fault {
  readonly conf?: () => Spoiled;
  readonly cluster?: string;
  readonly spoil?: () => void;
  /** What the error must name beside the key's file and line. */
  readonly says: RegExp;
  /** The key whose place it must name; null: none can be. */
  readonly key: string | null;
}

describe('a reload of what is broken:', function () {
  this.timeout(90_000);
  let service: Service;
  let stress: Stress;
  let pki: Credentials;

  before(async () => {
    service = await Service.start({ remote: true });
    await service.readyWorkers(2);
    pki = service.credentials!;
    stress = await service.stress();
  });

  after(async () => {
    const report = await stress.stop();
    await service.end();
    expect(lossesOf(report)).to.deep.equal([]);
  });

  /** A file of the service's own directory. */
  const file = (name: string, text: string): string => {
    const path = join(service.directory, name);
    writeFileSync(path, text);
    return path;
  };

  const faults: Record<string, Fault> = {
    'a line that is none of the grammar': {
      spoil: () => writeFileSync(service.confFile, 'max_clients = 10\nmax_clients 20\n'),
      says: /virtproxyd.conf:2: /,
      key: null,
    },
    'a value of another type': {
      conf: () => ({ max_clients: 'many' }),
      says: /an unsigned integer is expected/,
      key: 'max_clients',
    },
    'a value nobody knows': {
      conf: () => ({ auth_tls: 'password' }),
      says: /must be "none" or "sasl"/,
      key: 'auth_tls',
    },
    'keys that contradict each other': {
      conf: () => ({ max_clients: 5, max_anonymous_clients: 10 }),
      says: /max_anonymous_clients/,
      key: 'max_clients',
    },
    'no configuration file': {
      spoil: () => rmSync(service.confFile),
      says: /virtproxyd.conf: .* there is no such file/,
      key: null,
    },
    'a cluster setting that is no number': {
      cluster: 'drain_timeout = soon\n',
      says: /virtproxyd-cluster.ini:\d+: .*drain_timeout/,
      key: null,
    },
    'a group nobody knows': {
      conf: () => ({ unix_sock_group: 'nobody-knows-it' }),
      says: /There is no group 'nobody-knows-it'/,
      key: 'unix_sock_group',
    },
    'a service nobody knows': {
      conf: () => ({ tcp_port: 'nobody-knows-it' }),
      says: /There is no service 'nobody-knows-it'/,
      key: 'tcp_port',
    },
    'an address of another host': {
      conf: () => ({ listen_addr: '192.0.2.1' }),
      says: /Cannot listen on '192.0.2.1:\d+': .*EADDRNOTAVAIL/,
      key: 'tcp_port',
    },
    'a directory that cannot be': {
      conf: () => ({ unix_sock_dir: join(service.confFile, 'sockets') }),
      says: /Cannot make the directory .*ENOTDIR/,
      key: 'unix_sock_dir',
    },
    'no certificate': {
      conf: () => ({ cert_file: '/nonexistent/cert.pem' }),
      says: /'\/nonexistent\/cert.pem'/,
      key: 'cert_file',
    },
    'a certificate that is none': {
      conf: () => ({ cert_file: file('text.pem', 'certificate\n') }),
      says: /text.pem does not hold a server certificate/,
      key: 'cert_file',
    },
    'a certificate that has expired': {
      conf: () => ({ cert_file: issue('old', validity.expired) }),
      says: /old.pem expired on 2021-01-01/,
      key: 'cert_file',
    },
    'a certificate of another authority': {
      conf: () => ({ ca_file: otherAuthority().cert }),
      says: /is not signed by a CA of .*other.pem/,
      key: 'cert_file',
    },
    'the key of another certificate': {
      conf: () => ({ key_file: otherAuthority().key }),
      says: /other-key.pem is not the one of the server certificate/,
      key: 'key_file',
    },
    'a revocation list that is none': {
      conf: () => ({ crl_file: file('crl.pem', readFileSync(pki.server.cert, 'utf8')) }),
      says: /crl.pem does not hold a certificate revocation list/,
      key: 'crl_file',
    },
    'a priority that leaves nothing': {
      conf: () => ({ tls_priority: 'NORMAL:-VERS-ALL' }),
      says: /NORMAL:-VERS-ALL/,
      key: 'tls_priority',
    },
  };

  const issue = (name: string, valid: readonly string[]): string =>
    pki.authority.issue(name, { purpose: purpose.server, validity: valid }).cert;
  let other: Authority | null = null;
  const otherAuthority = (): Authority => (other ??= Authority.create(service.directory, 'other'));

  /** Of everything a reload changes: its workers and its sockets. */
  const shape = (): unknown => ({
    processes: service.processes(),
    inode: statSync(service.proxy.socket).ino,
    mode: service.socketMode(),
  });

  async function rejects(fault: Fault): Promise<void> {
    const before = shape();
    const said = service.logged(/reload failed/).length;
    if (fault.conf) await service.configure({ ...fault.conf(), unix_sock_rw_perms: '0777' });
    if (fault.cluster) await service.configureCluster(fault.cluster);
    fault.spoil?.();
    service.signal('SIGHUP');
    await service.says(/reload failed, the old configuration stays in force/, said + 1);
    const errors = service
      .logged(/reload failed/)
      .slice(said)
      .join('\n');
    expect(errors).to.match(fault.says);
    if (fault.key !== null) {
      const lines = readFileSync(service.confFile, 'utf8').split('\n');
      const line = 1 + lines.findIndex((text) => text.startsWith(`${fault.key ?? ''} =`));
      expect(errors).to.contain(`${service.confFile}:${line}: `).and.to.contain(fault.key);
    }
    expect(shape()).to.deep.equal(before);
    await stress.flows();
  }

  afterEach(async () => {
    await service.configure({});
    await service.configureCluster('');
  });

  for (const [what, fault] of Object.entries(faults)) {
    it(`${what}: is refused, names the place, and changes nothing`, () => rejects(fault));
  }

  it('a port that somebody has: is refused, names the place, and changes nothing', async () => {
    const rival = createServer().listen(0, '127.0.0.1');
    await once(rival, 'listening');
    const { port } = rival.address() as AddressInfo;
    await rejects({
      conf: () => ({ tls_port: String(port) }),
      says: /Cannot listen on '127.0.0.1:\d+': .*EADDRINUSE/,
      key: 'tls_port',
    });
    rival.close();
    await once(rival, 'close');
  });

  it('a socket that somebody has: is refused, names the place, and changes nothing', async () => {
    const rival = createServer().listen(join(service.directory, 'libvirt-sock-ro'));
    await once(rival, 'listening');
    await rejects({
      conf: () => ({ unix_sock_dir: service.directory }),
      says: /Cannot listen on .*libvirt-sock-ro': another process listens there/,
      key: 'unix_sock_dir',
    });
    expect(existsSync(join(service.directory, 'libvirt-sock')), 'the other socket').to.be.false;
    rival.close();
    await once(rival, 'close');
  });

  it('once it is mended, succeeds', async () => {
    await service.configure({ unix_sock_rw_perms: '0755' });
    await service.reload();
    expect(service.socketMode()).to.equal(0o755);
    await stress.flows();
  });
});
