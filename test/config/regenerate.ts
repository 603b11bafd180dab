// Writes what is made from the tables of keys: `npm run build && node dist/test/config/regenerate.js` in the project's
// directory.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { manClusterKeys, manKeys, sampleClusterIni, sampleConf } from '../../lib/config/render.js';

const MAN_PAGE = 'man/virtproxyd.8';

writeFileSync('conf/virtproxyd.conf', sampleConf());
writeFileSync('conf/virtproxyd-cluster.ini', sampleClusterIni());

if (existsSync(MAN_PAGE)) {
  let page = readFileSync(MAN_PAGE, 'utf8');
  for (const [name, text] of [
    ['keys', manKeys()],
    ['cluster keys', manClusterKeys()],
  ] as const) {
    const [begin, end] = [`.\\" begin ${name}\n`, `.\\" end ${name}\n`];
    const [before, after] = [page.split(begin)[0], page.split(end)[1]];
    if (before === undefined || after === undefined) throw new Error(`${MAN_PAGE} has no ${name}`);
    page = `${before}${begin}${text}${end}${after}`;
  }
  writeFileSync(MAN_PAGE, page);
}
