import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { childEnvironment } from '../../config/child-environment.js';
import type { Environment } from '../../config/paths.js';
import type { Logger } from '../../logging/logger.js';

/** What the hook is told of: operation, sub-operation and an extra word. */
export const hookEvents = {
  start: ['start', '-', 'start'],
  reload: ['reload', 'begin', 'SIGHUP'],
  shutdown: ['shutdown', '-', 'shutdown'],
} as const;
export type HookEvent = keyof typeof hookEvents;

export interface HookOptions {
  /** The administrator's program; it need not exist. */
  readonly file: string;
  readonly env: Environment;
  /** Seconds after which the hook and what it has started is killed. */
  readonly timeoutSeconds: number;
  readonly log: Pick<Logger, 'debug' | 'error'>;
}

/** Bytes of a hook's output that are logged. */
const maxOutput = 4096;

/** Milliseconds for which something the hook left in the background may still write to our log. */
const leftoverTime = 200;

/** The object the hook is called for: none. */
const noObject = '-';

/**
 * Runs the hook, then the ones in the directory of its name with .d, in alphabetical order, as far
 * as they are executable. Resolves when the last has ended; a hook that fails or hangs is logged
 * and changes nothing.
 */
export async function runHooks(event: HookEvent, options: HookOptions): Promise<void> {
  for (const program of hookPrograms(options.file)) await runHook(program, event, options);
}

function hookPrograms(file: string): string[] {
  const directory = `${file}.d`;
  let names: string[] = [];
  try {
    names = readdirSync(directory).sort();
  } catch {
    // Few hosts have such a directory.
  }
  return [file, ...names.map((name) => join(directory, name))].filter(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

async function runHook(
  program: string,
  event: HookEvent,
  { env, timeoutSeconds, log }: HookOptions,
): Promise<void> {
  const args = [noObject, ...hookEvents[event]];
  const subject = `hook ${program} ${args.join(' ')}`;
  log.debug(`${subject} begins`);
  const child = spawn(program, args, {
    cwd: '/',
    // A process group of its own, so that it can be killed as a whole.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: childEnvironment(env),
  });
  const limit = new AbortController();
  const timer = setTimeout(() => {
    limit.abort();
    killGroup(child);
  }, timeoutSeconds * 1000);
  const output = collected(child.stdout, child.stderr);
  try {
    const how = await ended(child);
    const said = output().trim();
    const words = said === '' ? '' : `: ${said}`;
    if (limit.signal.aborted)
      log.error(`${subject} was killed after ${timeoutSeconds} seconds${words}`);
    else if (how !== null) log.error(`${subject} ${how}${words}`);
    else log.debug(`${subject} succeeded${words}`);
  } catch (error) {
    log.error(`${subject} cannot be run: ${(error as Error).message}`);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Resolves with what went wrong, or null when the hook succeeded. Rejects when it cannot be
 * started.
 */
function ended(child: ChildProcess): Promise<string | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', () => {
      // What it left running may keep its output open for ever.
      const leftover = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, leftoverTime);
      child.once('close', () => clearTimeout(leftover));
    });
    child.once('close', (status, signal) => {
      if (signal !== null) resolve(`was killed by ${signal}`);
      else resolve(status === 0 ? null : `failed with status ${status ?? 'unknown'}`);
    });
  });
}

function collected(...streams: readonly Readable[]): () => string {
  const chunks: Buffer[] = [];
  let length = 0;
  for (const stream of streams) {
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Buffer) => {
      if (length < maxOutput) chunks.push(chunk.subarray(0, maxOutput - length));
      length += chunk.length;
    });
  }
  return () => Buffer.concat(chunks).toString('utf8');
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It ended at this very moment.
  }
}
