import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { defaultPaths, modeOf, tlsFiles } from '../../lib/config/paths.js';

const NO_TLS_KEYS = { ca_file: null, crl_file: null, cert_file: null, key_file: null };

describe('paths', () => {
  it('tells the mode by the uid', () => {
    expect(modeOf(0)).to.equal('system');
    expect(modeOf(1000)).to.equal('session');
  });

  it('has fixed places in system mode', () => {
    expect(defaultPaths('system', { XDG_RUNTIME_DIR: '/run/user/0' }, '/root')).to.deep.equal({
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
      configFile: '/c/libvirt/virtproxyd.conf',
      clusterFile: '/c/libvirt/virtproxyd-cluster.ini',
      runDirectory: '/run/user/7/libvirt',
      pidFile: '/run/user/7/libvirt/virtproxyd.pid',
      daemonDirectory: '/run/user/7/libvirt',
      hookFile: '/etc/libvirt/hooks/daemon',
      logFile: '/k/libvirt/virtproxyd.log',
    });
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
