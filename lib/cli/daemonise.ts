import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { duplicateOnto } from '../native/descriptors.js';

/**
 * Tells the background process which descriptor to say "ready" on; removed before anything else is
 * started.
 */
const readyVariable = 'VIRTPROXYD_READY_FD';
const readyDescriptor = 3;

/** What the background process says when it serves. */
const readyMark = 'ready\n';

/**
 * Node cannot fork: the background process is the same command line started anew, detached, with a
 * pipe back.
 */
export class BackgroundProcess {
  private constructor(private readonly fd: number) {}

  /** Set in the background process, null in one that was started by hand. */
  static current(): BackgroundProcess | null {
    const fd = process.env[readyVariable];
    // Workers and daemons must not see it.
    Reflect.deleteProperty(process.env, readyVariable);
    return fd === undefined ? null : new BackgroundProcess(Number(fd));
  }

  /** Lets the starting command return. */
  ready(): void {
    try {
      writeSync(this.fd, readyMark);
    } catch {
      // The starting command was killed; the daemon serves all the same.
    }
    closeSync(this.fd);
  }
}

/** Gives up the terminal, or whatever else the standard descriptors are. */
export function leaveTerminal(): void {
  const nowhere = openSync('/dev/null', 'r+');
  for (const standard of [0, 1, 2]) duplicateOnto(nowhere, standard);
  closeSync(nowhere);
}

/**
 * Starts this program again in the background. Resolves with the status to exit with: 0 once it
 * serves, its own or 1 when it ended before; it has said why on our standard error.
 */
export function startInBackground(): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
    env: { ...process.env, [readyVariable]: String(readyDescriptor) },
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code === null || code === 0 ? 1 : code));
    child.stdio[readyDescriptor]?.once('data', (said: Buffer) => {
      if (said.toString() === readyMark) resolve(0);
    });
  });
}
