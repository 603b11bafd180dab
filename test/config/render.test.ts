import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parseClusterIni } from '../../lib/config/cluster-ini.js';
import { parseConf } from '../../lib/config/grammar.js';
import { CONF_KEYS } from '../../lib/config/keys.js';
import { manClusterKeys, manKeys, sampleClusterIni, sampleConf } from '../../lib/config/render.js';
import { checkEntries } from '../../lib/config/settings.js';

const MAN_PAGE = 'man/virtproxyd.8';
const REMEDY = 'npm run build && node dist/test/config/regenerate.js';

const uncommented = (sample: string): string => sample.replaceAll(/^#(?=[a-z_]+ = )/gm, '');

describe('files made from the tables of keys', () => {
  it('conf/virtproxyd.conf is up to date', () => {
    expect(readFileSync('conf/virtproxyd.conf', 'utf8'), REMEDY).to.equal(sampleConf());
  });

  it('conf/virtproxyd-cluster.ini is up to date', () => {
    expect(readFileSync('conf/virtproxyd-cluster.ini', 'utf8'), REMEDY).to.equal(
      sampleClusterIni(),
    );
  });

  it('the manual page is up to date', function () {
    if (!existsSync(MAN_PAGE)) this.skip();
    const page = readFileSync(MAN_PAGE, 'utf8');
    const keys = `.\\" begin keys\n${manKeys()}.\\" end keys\n`;
    const clusterKeys = `.\\" begin cluster keys\n${manClusterKeys()}.\\" end cluster keys\n`;
    expect(page.includes(keys), REMEDY).to.equal(true);
    expect(page.includes(clusterKeys), REMEDY).to.equal(true);
  });

  it('the sample virtproxyd.conf sets nothing, and every key when its comments are removed', () => {
    expect(parseConf(sampleConf(), 's').entries).to.deep.equal([]);
    const { entries, problems } = parseConf(uncommented(sampleConf()), 's');
    expect(problems).to.deep.equal([]);
    expect(entries.map(({ key }) => key)).to.deep.equal(CONF_KEYS);
    expect(checkEntries(entries, 's', 'system').problems).to.deep.equal([]);
  });

  it('the sample virtproxyd-cluster.ini sets nothing, and is valid when its comments are removed', () => {
    expect(parseClusterIni(sampleClusterIni(), 's')).to.deep.equal(parseClusterIni('', 's'));
    const { problems, warnings, routes, metrics } = parseClusterIni(
      uncommented(sampleClusterIni()),
      's',
    );
    expect([problems, warnings]).to.deep.equal([[], []]);
    expect(routes).to.have.keys('qemu', 'default');
    expect(metrics.listen).to.be.a('string');
  });

  const judges = [
    ['man', '--warnings', '-E', 'UTF-8', '-l', MAN_PAGE],
    ['mandoc', '-T', 'lint', MAN_PAGE],
  ];
  for (const [program = '', ...args] of judges) {
    it(`the manual page is clean (needs ${program})`, function () {
      const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      if (error !== undefined) this.skip();
      expect(stderr).to.equal('');
      expect(status).to.equal(0);
      if (program === 'mandoc') expect(stdout).to.equal('');
    });
  }
});
