import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run, searchPath } from '../peers/clients.js';

export const project = fileURLToPath(new URL('../../../', import.meta.url));
export const build = fileURLToPath(new URL('../../', import.meta.url));

interface PackageFile {
  readonly version: string;
  readonly engines: { readonly node: string };
}
const packageFile = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as PackageFile;

export const { version } = packageFile;

/** The version after this one. */
export const nextVersion = version.replace(/\d+$/, (last) => String(Number(last) + 1));

/** Those of some programs that are not installed, for a skipped test's title; null when all are. */
export function lacking(...programs: readonly string[]): string | null {
  const missing = programs.filter(
    (program) =>
      spawnSync('sh', ['-c', 'command -v "$0"', program], { env: { PATH: searchPath } }).status !==
      0,
  );
  return missing.length === 0 ? null : `needs ${missing.join(', ')}`;
}

/**
 * Builds packages into a directory, of this program or of one that calls itself another version.
 * Resolves with their paths, in the order asked for.
 */
export async function buildPackages(
  output: string,
  kinds: readonly ('deb' | 'rpm')[],
  { as = version, umask = '022' } = {},
): Promise<string[]> {
  const source = as === version ? project : await sourceOf(join(output, `source-${as}`), as);
  const script = join(source, 'conf/packaging/build');
  const { code, stdout, stderr } = await run(
    'bash',
    ['-c', `umask ${umask}; exec bash "$0" "$@"`, script, ...kinds],
    {
      env: { PATH: searchPath, OUTPUT: output, BUILD_DIR: build, SOURCE_DATE_EPOCH: '1767225600' },
      timeoutMs: 180_000,
    },
  );
  if (code !== 0 || stderr !== '') throw new Error(`status ${code ?? ''}: ${stderr}`);
  return stdout.trim().split('\n');
}

/** A checkout like this one, but for its version. */
async function sourceOf(directory: string, as: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  for (const part of ['bin', 'conf', 'man', 'LICENSE', 'package-lock.json']) {
    cpSync(join(project, part), join(directory, part), { recursive: true });
  }
  symlinkSync(join(project, 'node_modules'), join(directory, 'node_modules'));
  writeFileSync(
    join(directory, 'package.json'),
    JSON.stringify({ ...packageFile, version: as }, null, 2),
  );
  return directory;
}
