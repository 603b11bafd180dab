import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'chai';

const outside = new Set(['node_modules', '.git', '.nodes']);

/** Files of the project whose name ends so. */
function filesOf(ending: string, directory = '.'): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      return outside.has(entry.name) || entry.name.startsWith('dist') ? [] : filesOf(ending, path);
    }
    return entry.name.endsWith(ending) ? [path] : [];
  });
}

/** A document without its code, in which brackets mean something else. */
const proseOf = (path: string): string =>
  readFileSync(path, 'utf8')
    .replaceAll(/^```.*?^```$/gms, '')
    .replaceAll(/`[^`\n]*`/g, '');

const headingsOf = (path: string): string[] =>
  [...readFileSync(path, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, text = '']) => text);

/** A heading's name in an address, as the usual viewers of Markdown make it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

function brokenLinks(document: string): string[] {
  const targets = [...proseOf(document).matchAll(/\]\(([^)\s]+)\)/g)].map(
    ([, target = '']) => target,
  );
  return targets.filter((target) => {
    if (/^(https?|mailto):/.test(target)) return false;
    const [file = '', anchor] = target.split('#');
    const path = file === '' ? document : join(dirname(document), file);
    if (!existsSync(path)) return true;
    return anchor !== undefined && !headingsOf(path).map(anchorOf).includes(anchor);
  });
}

describe('what documents refer to', () => {
  const documents = filesOf('.md');

  it('is there, link by link', () => {
    expect(documents).to.include.members(['README.md', 'lib/README.md', 'lib/rpc/PROTOCOL.md']);
    const broken = documents.flatMap((document) =>
      brokenLinks(document).map((target) => `${document}: ${target}`),
    );
    expect(broken).to.deep.equal([]);
  });

  it('is there, file by file in the pictures of lib/README.md', () => {
    const pictures = readFileSync('lib/README.md', 'utf8').match(/^```.*?^```$/gms) ?? [];
    const files = pictures.flatMap((picture) => picture.match(/[a-z-]+\/[a-z/-]+\.ts/g) ?? []);
    expect(files).to.have.length.greaterThan(30);
    expect(files.filter((file) => !existsSync(join('lib', file)))).to.deep.equal([]);
  });

  it('is there, where a comment in the code names a section of PROTOCOL.md', () => {
    const sections = headingsOf('lib/rpc/PROTOCOL.md');
    const wanted = [...filesOf('.ts', 'lib'), ...filesOf('.ts', 'test')].flatMap((file) =>
      [...readFileSync(file, 'utf8').matchAll(/PROTOCOL\.md, "([^"]+)"/g)].map(
        ([, section = '']) => ({ file, section }),
      ),
    );
    expect(wanted).to.have.length.greaterThan(3);
    expect(wanted.filter(({ section }) => !sections.includes(section))).to.deep.equal([]);
  });
});
