import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { saslFiles } from '../../lib/auth/sasl-files.js';

describe('auth/sasl-files', () => {
  let directory: string;
  let files: Record<'passwords' | 'keytab' | 'mux', string>;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'sasl-files-'));
    const make = (name: string): string => {
      const file = join(directory, name);
      writeFileSync(file, '');
      return file;
    };
    files = { passwords: make('passwords'), keytab: make('keytab'), mux: make('mux') };
  });
  after(() => rmSync(directory, { recursive: true }));

  /** The names of the files that count with these lines, beside libvirt.conf. */
  function counting(lines: string, installed: readonly string[] = []): string[] {
    const named =
      `sasldb_path: ${files.passwords}\nkeytab:${files.keytab} \n` +
      `saslauthd_path: ${files.mux}\n`;
    writeFileSync(join(directory, 'libvirt.conf'), lines + named);
    const env = { SASL_CONF_PATH: `${directory}/none:${directory}` };
    const [first, ...others] = saslFiles(env, installed);
    expect(first).to.include({ path: join(directory, 'libvirt.conf'), isSocket: false });
    return others.map(({ path, isSocket }) => {
      expect(isSocket).to.equal(path === files.mux);
      return path.slice(directory.length + 1);
    });
  }

  for (const [lines, expected] of [
    ['mech_list: digest-md5\n', ['passwords']],
    ['mech_list: SCRAM-SHA-256 GSSAPI\n', ['passwords', 'keytab']],
    ['mech_list: gssapi\n', ['keytab']],
    ['mech_list: external\n', []],
    ['# mech_list: external\nMECH_LIST: plain\n', ['passwords']],
    ['mech_list: plain\npwcheck_method: saslauthd\n', ['mux']],
    ['mech_list: login\npwcheck_method: auxprop saslauthd\n', ['passwords', 'mux']],
    ['mech_list: digest-md5\npwcheck_method: saslauthd\n', ['passwords']],
    ['mech_list: digest-md5\nauxprop_plugin: sql\n', []],
    ['mech_list: digest-md5\nauxprop_plugin: ldapdb sasldb\n', ['passwords']],
    ['mech_list: digest-md5\nmech_list: gssapi\n', ['passwords']],
  ] as const) {
    it(`knows what counts with ${JSON.stringify(lines)}`, () => {
      expect(counting(lines)).to.deep.equal(expected);
    });
  }

  it('goes by the plug-ins there are where nothing chooses of them', () => {
    expect(counting('', ['EXTERNAL', 'GSSAPI'])).to.deep.equal(['keytab']);
    expect(counting('', ['ANONYMOUS', 'CRAM-MD5'])).to.deep.equal(['passwords']);
  });

  it('leaves out what is not there', () => {
    writeFileSync(
      join(directory, 'libvirt.conf'),
      `mech_list: digest-md5 gssapi\nsasldb_path: ${directory}/none\n`,
    );
    const env = { SASL_CONF_PATH: directory, KRB5_KTNAME: `FILE:${files.keytab}` };
    const paths = saslFiles(env, []).map(({ path }) => path);
    expect(paths).to.deep.equal([join(directory, 'libvirt.conf'), files.keytab]);
    expect(
      saslFiles({ SASL_CONF_PATH: join(directory, 'none'), KRB5_KTNAME: join(directory, 'none') }, [
        'GSSAPI',
      ]),
    ).to.deep.equal([]);
  });
});
