import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { childEnvironment } from '../../config/child-environment.js';
import type { Environment } from '../../config/paths.js';
import type { Logger } from '../../logging/logger.js';
import { SocketStream } from '../../transport/socket-stream.js';
import type { Attempt } from './connection.js';
import type { Endpoint } from './directory.js';

/** Seconds without clients after which a daemon started here ends by itself. */
const daemonTimeout = 120;

/** How long and how often a daemon that was just started is tried, in milliseconds. */
const patience = 10_000;
const interval = 50;

/**
 * How long it is still tried once it has ended: as it does when another worker's daemon was
 * quicker.
 */
const lastPatience = 1000;

/** Directories searched after PATH: a user's PATH often lacks them. */
const systemDirectories = ['/usr/sbin', '/usr/local/sbin', '/sbin', '/usr/libexec'];

/** Connects to the user's own daemons, and starts one whose socket is missing. */
export class SessionDaemons {
  /** Programs that were started here and have not ended. */
  private readonly running = new Set<string>();

  constructor(
    private readonly env: Environment,
    private readonly log: Logger,
  ) {}

  /** The program of a daemon, or null when it is not installed. */
  find(daemon: string): string | null {
    const { env } = this;
    // The first two name directories, not programs, for libvirt's own clients too.
    const directories = [
      env['VIRTD_PATH'] ?? '',
      env['LIBVIRTD_PATH'] ?? '',
      ...(env['PATH'] ?? '').split(delimiter),
      ...systemDirectories,
    ];
    return (
      directories
        .filter((directory) => directory !== '')
        .map((directory) => join(directory, daemon))
        .find(isExecutable) ?? null
    );
  }

  /** Rejects with the system's error when there is no daemon and none can be started. */
  async connect(endpoint: Endpoint, attempt: Attempt): Promise<SocketStream> {
    try {
      return SocketStream.connect(endpoint.path);
    } catch (error) {
      if (!isMissing(error) || this.env['LIBVIRT_AUTOSTART'] === '0') throw error;
      const program = this.find(endpoint.daemon);
      if (program === null) throw error;
      if (!this.running.has(program)) this.start(program);
      return await this.retry(endpoint, program, attempt.signal);
    }
  }

  private start(program: string): void {
    this.log.info(`starting ${program}`);
    this.running.add(program);
    const child = spawn(program, [`--timeout=${daemonTimeout}`], {
      detached: true,
      stdio: 'ignore',
      env: childEnvironment(this.env),
    });
    child.on('error', (error) => {
      this.running.delete(program);
      this.log.error(`cannot start ${program}: ${error.message}`);
    });
    child.on('exit', (code, ended) => {
      this.running.delete(program);
      if (code !== 0) this.log.warning(`${program} ended with ${ended ?? `status ${code}`}`);
    });
    child.unref();
  }

  private async retry(
    endpoint: Endpoint,
    program: string,
    signal: AbortSignal,
  ): Promise<SocketStream> {
    let deadline = Date.now() + patience;
    let isRunning = true;
    for (;;) {
      try {
        return SocketStream.connect(endpoint.path);
      } catch (error) {
        if (!isMissing(error) || Date.now() > deadline) throw error;
      }
      if (isRunning && !this.running.has(program)) {
        isRunning = false;
        deadline = Math.min(deadline, Date.now() + lastPatience);
      }
      await sleep(interval, undefined, { signal });
    }
  }
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
