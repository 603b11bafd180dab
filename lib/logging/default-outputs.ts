import { fstatSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { LogOutput } from '../config/log-settings.js';
import type { Environment, Mode } from '../config/paths.js';
import { logSockets, type LogSockets } from './log-output.js';

export interface DefaultOutputsOptions {
  /** Runs in the background, without a standard error that anybody reads. */
  readonly daemon: boolean;
  readonly mode: Mode;
  /** Where the log goes when there is no other place. */
  readonly logFile: string;
  readonly env: Environment;
  readonly sockets?: LogSockets;
}

/**
 * Where the log goes when log_outputs does not say, as the C daemon decides it: in the background
 * to journald, or to a file where that is missing; otherwise to the standard error. Where that is
 * journald's own stream the log goes to journald directly, which keeps levels and components apart.
 * Levels are left to log_level and log_filters.
 */
export function defaultOutputs({
  daemon,
  mode,
  logFile,
  env,
  sockets = logSockets,
}: DefaultOutputsOptions): readonly [LogOutput] {
  if (daemon ? isSocket(sockets.journal) : isJournalStream(env)) {
    return [{ level: 1, kind: 'journald' }];
  }
  if (!daemon) return [{ level: 1, kind: 'stderr' }];
  try {
    mkdirSync(dirname(logFile), { recursive: true, mode: mode === 'system' ? 0o755 : 0o700 });
  } catch {
    // Opening the file will say so.
  }
  return [{ level: 1, kind: 'file', path: logFile }];
}

function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

/** JOURNAL_STREAM names the device and inode of the stream that systemd made (systemd.exec(5)). */
function isJournalStream(env: Environment): boolean {
  const { dev, ino } = fstatSync(2);
  return env['JOURNAL_STREAM'] === `${dev}:${ino}`;
}
