/**
 * Makes the proxy's processes tell what memory they have in use without garbage, with no hook in
 * the program: loaded into them by NODE_OPTIONS, it collects on a signal and writes what is left
 * into a file of a directory.
 */
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { until } from '../peers/waiting.js';

const variable = 'SOAK_MEMORY_PROBE';
const signal = 'SIGUSR1';

/** Milliseconds that a process may take to answer. */
const patience = 30_000;

/** The test's side: what to start the proxy with, and how to ask. */
export class MemoryProbe {
  private readonly directory = mkdtempSync(join(tmpdir(), 'vp-'));

  env(): Record<string, string> {
    return { NODE_OPTIONS: `--import=${import.meta.url}`, [variable]: this.directory };
  }

  /** Bytes that a process has in use of what node counts: its heap and buffers. */
  async bytesInUse(pid: number): Promise<number> {
    const file = join(this.directory, String(pid));
    rmSync(file, { force: true });
    process.kill(pid, signal);
    const read = (): string | null => {
      try {
        return readFileSync(file, 'utf8');
      } catch {
        return null;
      }
    };
    const what = `process ${pid} to tell its memory`;
    return Number(await until(read, { what, deadlineMs: patience }));
  }

  end(): void {
    rmSync(this.directory, { recursive: true });
  }
}

const directory = process.env[variable];
if (directory !== undefined) {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  process.on(signal, () => {
    // What the first finds to be finalised the next one frees.
    for (let times = 0; times < 3; times++) collect();
    const { heapUsed, external } = process.memoryUsage();
    const file = join(directory, String(process.pid));
    writeFileSync(`${file}.new`, String(heapUsed + external));
    renameSync(`${file}.new`, file);
  });
}
