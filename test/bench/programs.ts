import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The benchmark's C programs, built. */
export interface Programs {
  readonly generator: string;
  readonly standIn: string;
  /** Whether the generator was built with GnuTLS. */
  readonly speaksTls: boolean;
}

/** From dist/test/bench to the sources. */
const sources = new URL('../../../test/bench/', import.meta.url);

/** dist/bench */
const output = new URL('../../bench/', import.meta.url);

/** What this machine lacks to build them, as a phrase for a test's title. */
export function programsLacking(): string | undefined {
  return spawnSync('cc', ['--version']).status === 0 ? undefined : 'needs cc and the C headers';
}

/** Compiles both programs. Throws with the compiler's words. */
export function buildPrograms(): Programs {
  mkdirSync(output, { recursive: true });
  const standIn = compile('stand-in-daemon');
  try {
    const generator = compile('load-generator', ['-DWITH_TLS'], ['-lgnutls']);
    return { generator, standIn, speaksTls: true };
  } catch {
    // Without GnuTLS's headers (Debian: libgnutls28-dev) all but the TLS rows can be measured.
    return { generator: compile('load-generator'), standIn, speaksTls: false };
  }
}

function compile(
  name: string,
  flags: readonly string[] = [],
  libraries: readonly string[] = [],
): string {
  const source = fileURLToPath(new URL(`${name}.c`, sources));
  const program = fileURLToPath(new URL(name, output));
  const args = ['-std=gnu11', '-Wall', '-O2', ...flags, '-o', program, source, ...libraries];
  const { status, stderr } = spawnSync('cc', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`Cannot compile ${source}: ${stderr}`);
  return program;
}
