import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Configuration } from '../../config/configuration.js';
import { keyFault } from '../../config/key-fault.js';
import { homelessness } from '../../config/paths.js';

/** Makes the directory of the sockets if it is not there. Throws ConfigError. */
export function makeRunDirectory(configuration: Configuration): void {
  const { mode, paths } = configuration;
  try {
    makeDirectory(paths.runDirectory, mode === 'system' ? 0o755 : 0o700);
  } catch (error) {
    const reason = (error as Error).message;
    const hint = homelessness(paths, paths.runDirectory);
    const sentence = `Cannot make the directory '${paths.runDirectory}': ${reason}.${hint}`;
    throw keyFault(configuration, 'unix_sock_dir', sentence);
  }
}

/**
 * With those above it. Node's own way never returns where nothing can be made in a directory that
 * exists, as in /proc.
 */
function makeDirectory(path: string, mode: number): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path), mode);
  mkdirSync(path, mode);
}
