import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigError } from '../../../lib/config/errors.js';
import {
  addressName,
  planListeners,
  type PlannedListener,
} from '../../../lib/primary/listeners/listener-plan.js';
import { configurationIn } from '../configuration.js';

describe('primary/listeners/listener-plan: what there is to listen on', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'plan-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  type Options = Parameters<typeof configurationIn>[2];
  const planOf = (conf: string, options: Options = {}): Promise<PlannedListener[]> =>
    planListeners(configurationIn(directory, conf, options), []);
  const names = (plan: readonly PlannedListener[]): string[] =>
    plan.map(({ settings: { role, name } }) => `${role} ${name}`);
  const faultOf = (conf: string, options: Options = {}): Promise<string> =>
    planOf(conf, options).then(
      () => 'none',
      (error: unknown) => (error instanceof ConfigError ? error.message : String(error)),
    );

  it('has the sockets of the mode: a user has no read-only one', async () => {
    const conf = 'unix_sock_dir = "/run/x"\n';
    const session = ['rw libvirt-sock', 'admin libvirt-admin-sock', 'admin virtproxyd-admin-sock'];
    const system = [session[0], 'ro libvirt-sock-ro', ...session.slice(1)];
    const below = (name = ''): string => name.replace(' ', ' /run/x/');
    expect(names(await planOf(conf))).to.deep.equal(session.map(below));
    expect(names(await planOf(conf, { mode: 'system' }))).to.deep.equal(system.map(below));
  });

  it('gives each socket its login, rights, queue and file', async () => {
    const plan = await planOf(
      'auth_unix_rw = "none"\nauth_unix_ro = "sasl"\nunix_sock_rw_perms = "0770"\n' +
        'max_queued_clients = 7\nadmin_max_queued_clients = 0\nunix_sock_group = "0"\n',
      { mode: 'system' },
    );
    const [rw, ro, admin] = plan;
    expect(rw?.settings).to.include({ auth: 'none', readOnly: false, backlog: 7 });
    expect(rw).to.deep.nested.include({ 'file.mode': 0o770, 'file.group': 0 });
    expect(ro?.settings).to.include({ auth: 'sasl', readOnly: true, backlog: 7 });
    expect(admin?.settings).to.include({ auth: 'none', readOnly: false, backlog: 30 });
  });

  it('has every address of TCP and TLS, of which only the wildcard of IPv6 may be missing', async () => {
    const conf = 'listen_tcp = 1\ntcp_port = "1234"\nauth_tcp = "none"\nlisten_tls = 0\n';
    const remote = (plan: readonly PlannedListener[]): unknown[] =>
      plan.flatMap((planned) =>
        'address' in planned ? [[planned.settings.name, planned.optional]] : [],
      );
    expect(remote(await planOf(conf))).to.deep.equal([
      ['0.0.0.0:1234', false],
      ['[::]:1234', true],
    ]);
    expect(remote(await planOf(`${conf}listen_addr = "::1"\n`))).to.deep.equal([
      ['[::1]:1234', false],
    ]);
  });

  it('has the metrics where the cluster says, beside sockets of the service manager too', async () => {
    const metrics = `[metrics]\nlisten = ${directory}/metrics\n`;
    const configuration = configurationIn(directory, '', { cluster: metrics });
    const plan = await planListeners(configuration, [{ role: 'rw', name: '/run/given' }]);
    expect(names(plan)).to.deep.equal(['rw /run/given', `metrics ${directory}/metrics`]);
    expect(plan[0]).to.include({ isOpen: true, place: null });
    expect(plan[0]?.settings.isActivated).to.be.true;
    expect(plan[1]?.place).to.equal(`${directory}/virtproxyd-cluster.ini:2: [metrics] listen`);
    const tcp = await planOf('', { cluster: '[metrics]\nlisten = 127.0.0.1:9177\n' });
    expect(names(tcp).at(-1)).to.equal('metrics 127.0.0.1:9177');
  });

  it('names the key, and the line, of a group, port or host nobody knows', async () => {
    const tcp = 'listen_tcp = 1\nauth_tcp = "none"\n';
    expect(await faultOf('unix_sock_group = "nobody-s"\n')).to.include(
      "virtproxyd.conf:1: unix_sock_group: There is no group 'nobody-s'.",
    );
    expect(await faultOf(`${tcp}tcp_port = "nonsense"\n`)).to.include(
      "virtproxyd.conf:3: tcp_port: There is no service 'nonsense'",
    );
    expect(await faultOf(`${tcp}listen_addr = "no.such.invalid"\n`)).to.match(
      /virtproxyd.conf:3: listen_addr: The name 'no.such.invalid' has no address \(\w+\)/,
    );
    expect(await faultOf('', { cluster: '[metrics]\nlisten = no.such.invalid:9177\n' })).to.include(
      "[metrics] listen: The name 'no.such.invalid' has no address",
    );
  });

  it('writes addresses as administrators do', () => {
    expect(addressName('192.0.2.7', 1)).to.equal('192.0.2.7:1');
    expect(addressName('2001:db8::1', 1)).to.equal('[2001:db8::1]:1');
  });
});
