// Writes what is made from the tables of keys: `npm run regenerate`.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { manClusterKeys, manKeys, sampleClusterIni, sampleConf } from '../../lib/config/render.js';

/** Puts a list into a manual page, where its name is marked. */
function fill(page: string, name: string, list: string): void {
  if (!existsSync(page)) return;
  const text = readFileSync(page, 'utf8');
  const [begin, end] = [`.\\" begin ${name}\n`, `.\\" end ${name}\n`];
  const [before, after] = [text.split(begin)[0], text.split(end)[1]];
  if (before === undefined || after === undefined) throw new Error(`${page} has no ${name}`);
  writeFileSync(page, `${before}${begin}${list}${end}${after}`);
}

writeFileSync('conf/virtproxyd.conf', sampleConf());
writeFileSync('conf/virtproxyd-cluster.ini', sampleClusterIni());
fill('man/virtproxyd.8', 'keys', manKeys());
fill('man/virtproxyd-cluster.ini.5', 'cluster keys', manClusterKeys());
