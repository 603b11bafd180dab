import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { PlacesConfiguration } from '../../../lib/config/daemon-places.js';
import { ownConnector } from '../../../lib/worker/daemon/connector.js';
import { DaemonDirectory } from '../../../lib/worker/daemon/directory.js';
import { freshDirectory } from '../../peers/waiting.js';

type Routes = Readonly<Record<string, string>>;

const directoryOf = (
  mode: 'system' | 'session',
  routes: Routes = {},
  daemonDirectory = '/run/libvirt',
): DaemonDirectory =>
  new DaemonDirectory(
    {
      mode,
      routes,
      paths: { daemonDirectory } as PlacesConfiguration['paths'],
    },
    (endpoint) => ownConnector.exists(endpoint),
  );

describe('the directory of daemons', () => {
  const endpoints: readonly (readonly [
    title: string,
    directory: DaemonDirectory,
    driver: string,
    readOnly: boolean,
    daemon: string,
    path: string,
  ])[] = [
    [
      'has the standard place of a driver’s daemon',
      directoryOf('system'),
      'qemu',
      false,
      'virtqemud',
      '/run/libvirt/virtqemud-sock',
    ],
    [
      'has the read-only socket for whoever may only look',
      directoryOf('system'),
      'qemu',
      true,
      'virtqemud',
      '/run/libvirt/virtqemud-sock-ro',
    ],
    [
      'has no read-only sockets in session mode',
      directoryOf('session'),
      'qemu',
      true,
      'virtqemud',
      '/run/libvirt/virtqemud-sock',
    ],
    [
      'has a driver’s socket where [routes] says',
      directoryOf('system', { qemu: '/srv/q' }),
      'qemu',
      true,
      'virtqemud',
      '/srv/q-ro',
    ],
    [
      'has all others with the daemon that serves any driver',
      directoryOf('system', { qemu: '/srv/q', default: '/srv/all' }),
      'lxc',
      false,
      'libvirtd',
      '/srv/all',
    ],
  ];
  for (const [title, directory, driver, readOnly, daemon, path] of endpoints) {
    it(title, () => {
      expect(directory.endpoint(driver, readOnly)).to.eql({ driver, daemon, path, readOnly });
    });
  }

  const secondaries: readonly (readonly [
    title: string,
    hypervisor: string,
    routes: Routes,
    path: string | null,
  ])[] = [
    ['has virtstoraged beside virtqemud', 'qemu', {}, '/run/libvirt/virtstoraged-sock'],
    ['has none beside a driver that brings its own', 'vbox', {}, null],
    ['has none beside a driver nobody knows', 'test', {}, null],
    ['has none beside a daemon that serves any driver', 'qemu', { default: '/srv/all' }, null],
    [
      'has one beside that if [routes] names it',
      'qemu',
      { default: '/srv/all', storage: '/srv/s' },
      '/srv/s',
    ],
  ];
  for (const [title, hypervisor, routes, path] of secondaries) {
    it(`${title} for calls about storage`, () => {
      const endpoint = directoryOf('system', routes).secondary(hypervisor, 'storage', false);
      expect(endpoint?.path ?? null).to.equal(path);
    });
  }

  it('opens secondary drivers by a URI of its mode', () => {
    expect(directoryOf('system').secondaryUri('storage')).to.equal('storage:///system');
    expect(directoryOf('session').secondaryUri('network')).to.equal('network:///session');
  });

  it('knows the names of all daemons there may be', () => {
    const { daemonNames } = directoryOf('system', { mine: '/srv/mine' });
    expect([...daemonNames]).to.include.members(['virtqemud', 'virtstoraged', 'virtmined']);
    expect([...directoryOf('system', { default: '/srv/all' }).daemonNames]).to.eql(['libvirtd']);
  });

  describe('finds for an empty URI', () => {
    const probes: readonly (readonly [
      title: string,
      present: readonly string[],
      installed: readonly string[],
      routed: readonly string[],
      driver: string | null,
    ])[] = [
      ['the only hypervisor that is there', ['virtlxcd-sock'], [], [], 'lxc'],
      ['the first of several', ['virtlxcd-sock', 'virtqemud-sock'], [], [], 'qemu'],
      ['no secondary daemon', ['virtstoraged-sock'], [], [], null],
      ['one that can be started if none is there', [], ['virtlxcd', 'virtvzd'], [], 'lxc'],
      [
        'one that is there before one that can be started',
        ['virtlxcd-sock'],
        ['virtqemud'],
        [],
        'lxc',
      ],
      [
        'the daemon that serves any driver',
        ['virtqemud-sock'],
        ['virtqemud'],
        ['default'],
        'default',
      ],
      ['a driver that [routes] names before that', ['qemu'], [], ['qemu', 'default'], 'qemu'],
      ['nothing where there is nothing', [], [], [], null],
    ];
    for (const [title, present, installed, routed, driver] of probes) {
      it(title, async () => {
        const folder = await freshDirectory();
        for (const name of present) await writeFile(join(folder, name), '');
        const routes = Object.fromEntries(routed.map((name) => [name, join(folder, name)]));
        const directory = directoryOf('system', routes, folder);
        const found = await directory.probe(false, (daemon) => installed.includes(daemon));
        expect(found?.driver ?? null).to.equal(driver);
      });
    }

    it('a URI of the mode, and none of the daemon that serves any driver', async () => {
      const nowhere = join(await freshDirectory(), 'none');
      const isInstalled = (daemon: string): boolean => daemon === 'virtqemud';
      const probe = (routes: Routes): ReturnType<DaemonDirectory['probe']> =>
        directoryOf('session', routes, nowhere).probe(false, isInstalled);
      expect(await probe({})).to.eql({ driver: 'qemu', uri: 'qemu:///session' });
      expect(await probe({ default: nowhere })).to.eql({ driver: 'default', uri: '' });
    });
  });
});
