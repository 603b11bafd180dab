import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { startProgram } from '../peers/proxy.js';

describe('virtproxyd with a wrong configuration or command line', () => {
  let directory: string;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'vp-'));
  });

  after(() => rm(directory, { recursive: true }));

  const cases: readonly (readonly [string, string, string, RegExp])[] = [
    ['a bool that is a string', 'listen_tcp = "yes"', '1', /listen_tcp/],
    ['a number that is a string', 'max_clients = "many"', '1', /max_clients/],
    ['a negative number', 'max_clients = -5', '1', /max_clients/],
    ['a list that is a number', 'tls_allowed_dn_list = 5', '1', /tls_allowed_dn_list/],
    ['a key without a value', 'max_clients', '1', /expecting an assignment/],
    ['a second line that is wrong', '# one\nmax_clients 5', '2', /expecting an assignment/],
    ['an unknown login', 'auth_unix_rw = "magic"', '1', /auth_unix_rw.*magic|magic.*auth_unix_rw/],
    [
      'too weak a SASL layer',
      'tcp_min_ssf = 56',
      '1',
      /minimum SSF levels lower than 112 are not supported/,
    ],
  ];
  for (const [what, text, line, words] of cases) {
    it(`says what is wrong with ${what}, and exits 1`, async () => {
      const file = join(directory, 'virtproxyd.conf');
      await writeFile(file, `${text}\n`);
      const { code, stderr } = await startProgram(['-f', file]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain(`${file}:${line}`);
      expect(stderr).to.match(words);
    });
  }

  it('names a file that is missing, and exits 1', async () => {
    const file = join(directory, 'missing.conf');
    const { code, stderr } = await startProgram(['-f', file]).finished;
    expect(code).to.equal(1);
    expect(stderr).to.contain(file);
  });

  for (const value of ['abc', '-1', '']) {
    it(`refuses the timeout '${value}', and exits 1`, async () => {
      const { code, stderr } = await startProgram([`--timeout=${value}`]).finished;
      expect(code).to.equal(1);
      expect(stderr).to.contain('Invalid value for timeout');
    });
  }
});
