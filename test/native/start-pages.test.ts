import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { releaseProgramPages, unchangedMappings } from '../../lib/native/start-pages.js';

/** One mapping as /proc/PID/smaps has it. */
const mapping = (head: string, anonymous: number): string =>
  `${head}\nSize: 8 kB\nRss: 8 kB\nAnonymous: ${anonymous} kB\nLazyFree: 0 kB\nVmFlags: rd ex\n`;

describe('native/start-pages', () => {
  it('finds what a file alone has made', () => {
    const smaps = [
      mapping('00400000-00402000 r--p 00000000 08:01 42                         /usr/bin/a b', 0),
      mapping('7f0000000000-7f0000001000 r-xp 00002000 08:01 42   /usr/bin/a b', 0),
    ].join('');
    expect(unchangedMappings(smaps, '/usr/bin/a b')).to.deep.equal([
      { address: 0x400000n, bytes: 8192 },
      { address: 0x7f0000000000n, bytes: 4096 },
    ]);
  });

  for (const [what, text] of [
    ['is writable', mapping('1000-2000 rw-p 00000000 08:01 42   /usr/bin/node', 0)],
    ['was written to', mapping('1000-2000 r--p 00000000 08:01 42   /usr/bin/node', 4)],
    ['has no file', mapping('1000-2000 r-xp 00000000 00:00 0 ', 0)],
    ['is of another file', mapping('1000-2000 r-xp 00000000 08:01 42   /usr/lib/node', 0)],
    ["is the kernel's", mapping('1000-2000 r-xp 00000000 00:00 0   [vdso]', 0)],
    ['does not say so', '1000-2000 r-xp 00000000 08:01 42   /usr/bin/node\nRss: 4 kB\n'],
  ] as const) {
    it(`leaves out what ${what}`, () => {
      expect(unchangedMappings(text, '/usr/bin/node')).to.deep.equal([]);
    });
  }

  it('lets go of pages that come back', async () => {
    const resident = (): number =>
      Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
    const before = resident();
    await releaseProgramPages();
    expect(resident()).to.be.below(before * 0.8);
    expect(JSON.parse(JSON.stringify({ still: ['works'] }))).to.deep.equal({ still: ['works'] });
  });
});
