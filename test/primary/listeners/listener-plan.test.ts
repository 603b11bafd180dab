import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readConfiguration } from '../../../lib/config/configuration.js';
import type { Mode } from '../../../lib/config/paths.js';
import {
  closedToGroups,
  type ActivatedSocket,
} from '../../../lib/primary/listeners/listener-plan.js';

describe("primary/listeners/listener-plan: a read-write socket that is root's alone", () => {
  let directory: string;

  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'virtproxyd-plan-'))));
  afterEach(() => rmSync(directory, { recursive: true }));

  const sentence = (
    conf: string,
    { mode = 'system', activated = [] }: { mode?: Mode; activated?: ActivatedSocket[] } = {},
  ): string | null => {
    const configFile = join(directory, 'virtproxyd.conf');
    writeFileSync(configFile, `unix_sock_dir = "${directory}"\n${conf}`);
    const env = { XDG_CONFIG_HOME: directory, XDG_RUNTIME_DIR: directory };
    const options = { mode, env, homeDirectory: directory, configFile };
    return closedToGroups(readConfiguration(options), activated);
  };

  it('is told with the keys that open it', () => {
    expect(sentence('auth_unix_rw = "none"\n'))
      .to.include(`${directory}/libvirt-sock has mode 0700`)
      .and.to.include('unix_sock_group = "GROUP" and unix_sock_rw_perms = "0770"');
  });

  it('is not where somebody logs in, or the mode was chosen', () => {
    expect(sentence('auth_unix_rw = "polkit"\n')).to.be.null;
    for (const mode of ['0700', '0770']) {
      expect(sentence(`auth_unix_rw = "none"\nunix_sock_rw_perms = "${mode}"\n`)).to.be.null;
    }
  });

  it('is not in session mode, nor where the service manager has opened the sockets', () => {
    expect(sentence('auth_unix_rw = "none"\n', { mode: 'session' })).to.be.null;
    const activated: ActivatedSocket[] = [{ role: 'rw', name: 'a socket' }];
    expect(sentence('auth_unix_rw = "none"\n', { activated })).to.be.null;
  });
});
