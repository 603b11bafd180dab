import { readdirSync, readlinkSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { ClientProcess, pythonProgram, run } from '../peers/clients.js';
import { freshDirectory, until } from '../peers/waiting.js';
import { lacking, project } from './built-packages.js';

const obstacle = lacking(pythonProgram);

/** Maps a file, as a process of the daemon does its libraries. */
const mapping = `
import mmap, sys
file = open(sys.argv[1], 'rb')
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print('mapped', flush=True)
sys.stdin.read()
`;

describe(`conf/release${obstacle === null ? '' : ` (${obstacle})`}`, () => {
  let library: string;

  before(function () {
    if (obstacle !== null) this.skip();
  });
  beforeEach(async () => {
    library = await freshDirectory();
    await mkdir(join(library, 'program'));
  });
  afterEach(() => rm(library, { recursive: true }));

  const release = async (action: string): Promise<void> => {
    const { code, stderr } = await run('sh', [join(project, 'conf/release'), action, library]);
    expect([code, stderr]).to.deep.equal([0, '']);
  };
  /** Installs a version and makes it current; returns the name of its release. */
  async function install(version: string, content = 'of this version'): Promise<string> {
    const program = join(library, 'program');
    await rm(program, { recursive: true });
    await mkdir(program);
    await writeFile(
      join(program, 'package.json'),
      `{\n  "name": "x",\n  "version": "${version}",\n}\n`,
    );
    await writeFile(join(program, 'library.so'), content);
    await release('use');
    const [folder, name = ''] = readlinkSync(join(library, 'current')).split('/');
    expect(folder).to.equal('releases');
    expect(name.startsWith(`${version}-`)).to.be.true;
    return name;
  }
  const releases = (): string[] => readdirSync(join(library, 'releases')).sort();

  it('keeps the newest release, the one before, and all that processes run from', async () => {
    const first = await install('1.0.0');
    const file = join(library, 'releases', first, 'library.so');
    const process = new ClientProcess(pythonProgram, ['-c', mapping, file]);
    try {
      await until(() => process.stdout === 'mapped\n', { what: 'the file to be mapped' });
      const second = await install('1.0.1');
      const third = await install('1.0.2');
      expect(releases()).to.deep.equal([first, second, third]);
      const fourth = await install('1.0.3');
      expect(releases()).to.deep.equal([first, third, fourth]);
      process.end();
      await process.finished;
      const fifth = await install('1.0.4');
      expect(releases()).to.deep.equal([fourth, fifth]);
    } finally {
      await process.kill();
    }
  });

  it('tells two builds of one version apart, and knows the same again', async () => {
    const first = await install('1.0.0');
    const second = await install('1.0.0', 'of another build');
    expect(second).not.to.equal(first);
    expect(await install('1.0.0')).to.equal(first);
    expect(releases()).to.have.members([first, second]);
    await release('remove');
    expect(readdirSync(library)).to.deep.equal(['program']);
  });
});
