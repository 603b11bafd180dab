import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parseClusterIni } from '../../lib/config/cluster-ini.js';
import { parseConf } from '../../lib/config/grammar.js';
import { CONF_KEYS } from '../../lib/config/keys.js';
import { manClusterKeys, manKeys, sampleClusterIni, sampleConf } from '../../lib/config/render.js';
import { checkEntries } from '../../lib/config/settings.js';

/** Manual pages, and the lists in them. */
const lists = [
  ['man/virtproxyd.8', 'keys', manKeys()],
  ['man/virtproxyd-cluster.ini.5', 'cluster keys', manClusterKeys()],
] as const;
const REMEDY = 'npm run regenerate';

const uncommented = (sample: string): string => sample.replaceAll(/^#(?=[a-z_]+(\[\])? = )/gm, '');

describe('files made from the tables of keys', () => {
  it('conf/virtproxyd.conf is up to date', () => {
    expect(readFileSync('conf/virtproxyd.conf', 'utf8'), REMEDY).to.equal(sampleConf());
  });

  it('conf/virtproxyd-cluster.ini is up to date', () => {
    expect(readFileSync('conf/virtproxyd-cluster.ini', 'utf8'), REMEDY).to.equal(
      sampleClusterIni(),
    );
  });

  for (const [page, name, list] of lists) {
    it(`${page} has its ${name} up to date`, function () {
      if (!existsSync(page)) this.skip();
      const part = `.\\" begin ${name}\n${list}.\\" end ${name}\n`;
      expect(readFileSync(page, 'utf8').includes(part), REMEDY).to.equal(true);
    });
  }

  it('the sample virtproxyd.conf sets nothing, and every key when its comments are removed', () => {
    expect(parseConf(sampleConf(), 's').entries).to.deep.equal([]);
    const { entries, problems } = parseConf(uncommented(sampleConf()), 's');
    expect(problems).to.deep.equal([]);
    expect(entries.map(({ key }) => key)).to.deep.equal(CONF_KEYS);
    expect(checkEntries(entries, 's', 'system').problems).to.deep.equal([]);
  });

  it('the sample virtproxyd-cluster.ini sets nothing, and is valid when its comments are removed', () => {
    expect(parseClusterIni(sampleClusterIni(), 's')).to.deep.equal(parseClusterIni('', 's'));
    const { problems, warnings, routes, metrics, access } = parseClusterIni(
      uncommented(sampleClusterIni()),
      's',
    );
    expect([problems, warnings]).to.deep.equal([[], []]);
    expect(routes).to.have.keys('qemu', 'default');
    expect(metrics.listen).to.be.a('string');
    for (const [key, list] of Object.entries(access)) expect(list, key).to.not.be.empty;
  });

  const pages = existsSync('man') ? readdirSync('man').map((name) => `man/${name}`) : [];
  const judges = pages.flatMap((page) => [
    ['man', '--warnings', '-E', 'UTF-8', '-l', page],
    ['mandoc', '-T', 'lint', page],
  ]);
  for (const [program = '', ...args] of judges) {
    it(`${args.at(-1)} is a clean manual page (needs ${program})`, function () {
      const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      if (error !== undefined) this.skip();
      expect(stderr).to.equal('');
      expect(status).to.equal(0);
      if (program === 'mandoc') expect(stdout).to.equal('');
    });
  }
});
