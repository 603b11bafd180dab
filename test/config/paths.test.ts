import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  defaultPaths,
  homeDirectory,
  homelessness,
  modeOf,
  tlsFiles,
} from '../../lib/config/paths.js';

const NO_TLS_KEYS = { ca_file: null, crl_file: null, cert_file: null, key_file: null };

describe('paths', () => {
  it('tells the mode by the uid', () => {
    expect(modeOf(0)).to.equal('system');
    expect(modeOf(1000)).to.equal('session');
  });

  it('has fixed places in system mode', () => {
    expect(defaultPaths('system', { XDG_RUNTIME_DIR: '/run/user/0' }, '/root')).to.deep.equal({
      home: '/root',
      configFile: '/etc/libvirt/virtproxyd.conf',
      clusterFile: '/etc/libvirt/virtproxyd-cluster.ini',
      runDirectory: '/run/libvirt',
      pidFile: '/run/virtproxyd.pid',
      daemonDirectory: '/run/libvirt',
      hookFile: '/etc/libvirt/hooks/daemon',
      logFile: '/var/log/libvirt/virtproxyd.log',
    });
  });

  it('follows the XDG variables in session mode', () => {
    const env = { XDG_CONFIG_HOME: '/c', XDG_RUNTIME_DIR: '/run/user/7', XDG_CACHE_HOME: '/k' };
    expect(defaultPaths('session', env, '/home/ann')).to.deep.equal({
      home: '/home/ann',
      configFile: '/c/libvirt/virtproxyd.conf',
      clusterFile: '/c/libvirt/virtproxyd-cluster.ini',
      runDirectory: '/run/user/7/libvirt',
      pidFile: '/run/user/7/libvirt/virtproxyd.pid',
      daemonDirectory: '/run/user/7/libvirt',
      hookFile: '/etc/libvirt/hooks/daemon',
      logFile: '/k/libvirt/virtproxyd.log',
    });
  });

  it('has the sockets in the cache directory without a runtime directory, as GLib', () => {
    for (const env of [{}, { XDG_RUNTIME_DIR: '' }, { XDG_RUNTIME_DIR: 'run' }]) {
      const paths = defaultPaths('session', { ...env, XDG_CACHE_HOME: '/k' }, '/home/ann');
      expect(paths).to.include({
        runDirectory: '/k/libvirt',
        pidFile: '/k/libvirt/virtproxyd.pid',
        daemonDirectory: '/k/libvirt',
      });
    }
  });

  it('needs a home directory only where a path leads there', () => {
    const whole = { XDG_CONFIG_HOME: '/c', XDG_RUNTIME_DIR: '/r', XDG_CACHE_HOME: '/k' };
    const led = (env: Record<string, string>, home: string | null = null): string[] => {
      const paths = defaultPaths('session', env, home);
      return Object.entries(paths).flatMap(([name, path]) =>
        homelessness(paths, (path as string | null) ?? '') === '' ? [] : [name],
      );
    };
    expect(led(whole)).to.deep.equal([]);
    expect(led({}, '/')).to.deep.equal([]);
    expect(led({ ...whole, XDG_CACHE_HOME: '' })).to.deep.equal(['logFile']);
    expect(led({ XDG_CONFIG_HOME: '/c', XDG_CACHE_HOME: '/k' })).to.deep.equal([]);
    expect(led({ XDG_CONFIG_HOME: '/c' })).to.deep.equal([
      'runDirectory',
      'pidFile',
      'daemonDirectory',
      'logFile',
    ]);
    expect(homelessness(defaultPaths('system', {}, null), '/run/libvirt')).to.equal('');
  });

  it('takes the home directory from HOME, else from the account database', () => {
    expect(homeDirectory({ HOME: '/home/ann' })).to.equal('/home/ann');
    for (const env of [{}, { HOME: '' }, { HOME: 'ann' }]) {
      expect(homeDirectory(env)).to.equal(userInfo().homedir);
    }
  });

  it('falls back to ~/.config and ~/.cache for variables that are unset, empty or relative', () => {
    const environments = [
      {},
      { XDG_CONFIG_HOME: '', XDG_RUNTIME_DIR: '' },
      { XDG_CONFIG_HOME: 'c' },
    ];
    for (const env of environments) {
      expect(defaultPaths('session', env, '/home/ann')).to.include({
        configFile: '/home/ann/.config/libvirt/virtproxyd.conf',
        runDirectory: '/home/ann/.cache/libvirt',
      });
    }
  });
});

describe('TLS files', () => {
  let home: string;
  const own = (name: string): string => join(home, '.pki/libvirt', name);
  const touch = (...names: string[]): void => {
    for (const name of names) writeFileSync(own(name), '');
  };

  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'virtproxyd-home-'));
    mkdirSync(join(home, '.pki/libvirt'), { recursive: true });
  });
  afterEach(() => rmSync(home, { recursive: true }));

  it("are the system's in system mode, whatever is in the home directory", () => {
    touch('cacert.pem', 'servercert.pem', 'serverkey.pem');
    expect(tlsFiles('system', NO_TLS_KEYS, home)).to.include({
      ca: '/etc/pki/CA/cacert.pem',
      cert: '/etc/pki/libvirt/servercert.pem',
      key: '/etc/pki/libvirt/private/serverkey.pem',
    });
  });

  it("are the user's in session mode where present", () => {
    touch('cacert.pem', 'cacrl.pem', 'servercert.pem', 'serverkey.pem');
    expect(tlsFiles('session', NO_TLS_KEYS, home)).to.deep.equal({
      ca: own('cacert.pem'),
      crl: own('cacrl.pem'),
      cert: own('servercert.pem'),
      key: own('serverkey.pem'),
    });
  });

  it("are the system's for a user without a home directory", () => {
    expect(tlsFiles('session', NO_TLS_KEYS, null)).to.include({
      ca: '/etc/pki/CA/cacert.pem',
      cert: '/etc/pki/libvirt/servercert.pem',
      key: '/etc/pki/libvirt/private/serverkey.pem',
    });
  });

  it('take key and certificate as a pair', () => {
    touch('cacert.pem', 'servercert.pem');
    expect(tlsFiles('session', NO_TLS_KEYS, home)).to.include({
      ca: own('cacert.pem'),
      cert: '/etc/pki/libvirt/servercert.pem',
      key: '/etc/pki/libvirt/private/serverkey.pem',
    });
  });

  it('are the configured ones first, without a default revocation list beside them', () => {
    touch('cacrl.pem');
    const settings = { ca_file: '/a', crl_file: null, cert_file: '/b', key_file: '/c' };
    expect(tlsFiles('session', settings, home)).to.deep.equal({
      ca: '/a',
      crl: null,
      cert: '/b',
      key: '/c',
    });
    expect(tlsFiles('session', { ...settings, crl_file: '/d' }, home).crl).to.equal('/d');
    expect(tlsFiles('session', { ...NO_TLS_KEYS, crl_file: '/d' }, home).crl).to.equal('/d');
  });
});
