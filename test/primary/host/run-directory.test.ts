import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigError } from '../../../lib/config/errors.js';
import { makeRunDirectory } from '../../../lib/primary/host/run-directory.js';
import { configurationIn } from '../configuration.js';

describe('primary/host/run-directory', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'run-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const modeOf = (path: string): number => statSync(path).mode & 0o777;

  it("is the user's alone in session mode and open to all in system mode", () => {
    for (const [mode, permissions] of [
      ['session', 0o700],
      ['system', 0o755],
    ] as const) {
      const runDirectory = join(directory, `a/${mode}`);
      makeRunDirectory(configurationIn(directory, `unix_sock_dir = "${runDirectory}"\n`, { mode }));
      expect(modeOf(runDirectory)).to.equal(permissions);
    }
  });

  it('is left as it is where it exists', () => {
    const configuration = configurationIn(directory, `unix_sock_dir = "${directory}"\n`, {
      mode: 'system',
    });
    makeRunDirectory(configuration);
    expect(modeOf(directory)).to.equal(0o700);
  });

  it('is a fault of unix_sock_dir, with its line, where it cannot be made', () => {
    const obstacle = join(directory, 'file');
    writeFileSync(obstacle, '');
    for (const path of [`${obstacle}/run`, '/proc/run']) {
      const configuration = configurationIn(directory, `unix_sock_dir = "${path}"\n`);
      expect(() => makeRunDirectory(configuration)).to.throw(
        ConfigError,
        new RegExp(`virtproxyd.conf:1: unix_sock_dir: Cannot make the directory '${path}'`),
      );
    }
  });
});
