import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { childEnvironment } from '../config/child-environment.js';
import type { Environment } from '../config/paths.js';
import type { Logger } from '../logging/logger.js';
import type { ByteStream } from '../transport/byte-stream.js';
import { SocketStream } from '../transport/socket-stream.js';
import type { Endpoint } from './daemon-directory.js';

/** Seconds without clients after which a daemon started here ends by itself. */
const daemonTimeout = 120;

/** How long and how often a daemon that was just started is tried, in milliseconds. */
const patience = 10_000;
const interval = 50;

/** Directories searched after PATH: a user's PATH often lacks them. */
const systemDirectories = ['/usr/sbin', '/usr/local/sbin', '/sbin', '/usr/libexec'];

/** Connects to the user's own daemons, and starts one whose socket is missing. */
export class SessionDaemons {
  constructor(
    private readonly env: Environment,
    private readonly log: Logger,
  ) {}

  /** The program of a daemon, or null when it is not installed. */
  find(daemon: string): string | null {
    const { env } = this;
    const directories = [...(env['PATH'] ?? '').split(delimiter), ...systemDirectories];
    const candidates = [
      env['VIRTD_PATH'],
      env['LIBVIRTD_PATH'],
      ...directories
        .filter((directory) => directory !== '')
        .map((directory) => join(directory, daemon)),
    ];
    return candidates.find((path) => path !== undefined && isExecutable(path)) ?? null;
  }

  /** Rejects with the system's error when there is no daemon and none can be started. */
  async connect(endpoint: Endpoint, signal: AbortSignal): Promise<ByteStream> {
    try {
      return await SocketStream.connect(endpoint.path, signal);
    } catch (error) {
      if (!isMissing(error) || this.env['LIBVIRT_AUTOSTART'] === '0') throw error;
      const program = this.find(endpoint.daemon);
      if (program === null) throw error;
      this.start(program);
      return await this.retry(endpoint, signal);
    }
  }

  private start(program: string): void {
    this.log.info(`starting ${program}`);
    const child = spawn(program, [`--timeout=${daemonTimeout}`], {
      detached: true,
      stdio: 'ignore',
      env: childEnvironment(this.env),
    });
    child.on('error', (error) => this.log.error(`cannot start ${program}: ${error.message}`));
    child.unref();
  }

  private async retry(endpoint: Endpoint, signal: AbortSignal): Promise<ByteStream> {
    const deadline = Date.now() + patience;
    for (;;) {
      try {
        return await SocketStream.connect(endpoint.path, signal);
      } catch (error) {
        if (!isMissing(error) || Date.now() > deadline) throw error;
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
    return true;
  } catch {
    return false;
  }
}
