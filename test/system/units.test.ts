import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

const units = fileURLToPath(new URL('../../../conf/systemd/', import.meta.url));
const installedProgram = '/usr/local/sbin/virtproxyd';

/** Overall exposure, of 10, that `systemd-analyze security` may find. */
const mostExposure = 3;

const analyze = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync('systemd-analyze', args, { encoding: 'utf8', env: { PATH: process.env['PATH'] } });
const reason = analyze('--version').status === 0 ? null : 'needs systemd-analyze';

describe(`the systemd units${reason === null ? '' : ` (${reason})`}`, function () {
  this.timeout(30_000);
  let directory: string;

  before(function () {
    if (reason !== null) this.skip();
  });
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'units-'));
    cpSync(units, directory, { recursive: true });
    // The program that they start has to exist.
    edit('virtproxyd.service', installedProgram, '/bin/true');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const edit = (unit: string, from: string, to: string): void => {
    const path = join(directory, unit);
    const text = readFileSync(path, 'utf8');
    expect(text).to.include(from);
    writeFileSync(path, text.replaceAll(from, to));
  };
  const verify = (): string => {
    const paths = readdirSync(directory).map((name) => join(directory, name));
    expect(paths).to.have.lengthOf(6);
    const { status, stderr } = analyze('verify', '--man=no', '--recursive-errors=no', ...paths);
    return status === 0 ? stderr : `status ${status ?? ''}: ${stderr}`;
  };

  it('have no mistake that systemd knows', () => {
    expect(verify()).to.equal('');
  });

  it('would not pass with one', () => {
    edit('virtproxyd-tls.socket', 'ListenStream=', 'ListenStraem=');
    expect(verify()).to.include('ListenStraem');
  });

  it(`leave the service an exposure of at most ${mostExposure}`, () => {
    const path = join(directory, 'virtproxyd.service');
    const { stdout } = analyze('security', '--offline=yes', '--no-pager', path);
    const exposure = /Overall exposure level .*: ([\d.]+) /.exec(stdout)?.[1];
    expect(Number(exposure)).to.be.above(0).and.at.most(mostExposure);
  });
});
