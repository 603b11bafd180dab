import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Duplex, Readable } from 'node:stream';
import type { Environment } from '../../config/paths.js';
import type { InheritedListener } from '../listeners/listener.js';

/**
 * How one primary follows another on the same listening sockets, to run a new version of the
 * program. The old one starts the new one with the sockets as descriptors from 4 up, and a pipe as
 * descriptor 3, on which the new one says `ready` when its workers are up, and the old one says
 * `go` when it has stopped accepting and given up the PID file.
 */
const conversationDescriptor = 3;
const variable = 'VIRTPROXYD_SUCCESSION';
const readyMark = 'ready\n';
const goMark = 'go\n';

/** What the successor finds at its start. */
export class Inheritance {
  private constructor(
    readonly listeners: readonly InheritedListener[],
    private readonly predecessor: Socket,
  ) {}

  /** Null when nobody is succeeded. The variable is removed: it is not for workers. */
  static take(env: NodeJS.ProcessEnv): Inheritance | null {
    const text = env[variable];
    Reflect.deleteProperty(env, variable);
    if (text === undefined) return null;
    const predecessor = new Socket({
      fd: conversationDescriptor,
      readable: true,
      writable: true,
    });
    return new Inheritance(JSON.parse(text) as InheritedListener[], predecessor);
  }

  /** Says that all is ready. Resolves when the predecessor has let go, or is gone. */
  async ready(): Promise<void> {
    const { predecessor } = this;
    predecessor.write(readyMark);
    await new Promise<void>((resolve) => {
      predecessor.once('data', () => resolve());
      predecessor.once('close', () => resolve());
      predecessor.once('error', () => resolve());
    });
    predecessor.destroy();
  }
}

/** The new version did not come up; the old one goes on. */
class SuccessionError extends Error {
  readonly code = 'SUCCESSION';
}

export interface SuccessorOptions {
  readonly listeners: readonly InheritedListener[];
  /** The directory this program was started in: the command line may name files relative to it. */
  readonly directory: string;
  readonly env: Environment;
  /**
   * Without a terminal of its own a failing successor says why here; null: on the standard error.
   */
  readonly complaint: ((line: string) => void) | null;
  /** Ends a successor that is not ready yet. */
  readonly signal: AbortSignal;
}

/** The new version of the program, started and ready to take over. */
export class Successor {
  private constructor(
    readonly pid: number,
    private readonly conversation: Duplex,
  ) {}

  /** Starts this program's command line anew. Resolves when it is ready. Throws SuccessionError. */
  static start(options: SuccessorOptions): Promise<Successor> {
    const { listeners, directory, env, complaint, signal } = options;
    const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      cwd: directory,
      signal,
      detached: true,
      stdio: [
        'ignore',
        'ignore',
        complaint === null ? 'inherit' : 'pipe',
        'pipe',
        ...listeners.map(({ fd }) => fd),
      ],
      env: {
        ...env,
        [variable]: JSON.stringify(
          listeners.map((listener, index) => ({
            ...listener,
            fd: conversationDescriptor + 1 + index,
          })),
        ),
      },
    });
    if (complaint !== null) {
      createInterface({ input: child.stdio[2] as Readable }).on('line', complaint);
    }
    const conversation = child.stdio[conversationDescriptor] as Duplex;
    return new Promise((resolve, reject) => {
      child.once('error', (error) => {
        reject(new SuccessionError(`cannot start the new version: ${error.message}`));
      });
      child.once('exit', (code, signal) => {
        const how = signal === null ? `with status ${code ?? 0}` : `by ${signal}`;
        reject(new SuccessionError(`the new version ended ${how} before it was ready`));
      });
      conversation.on('error', () => undefined);
      conversation.once('data', (said: Buffer) => {
        if (said.toString() !== readyMark) return;
        child.unref();
        resolve(new Successor(child.pid ?? 0, conversation));
      });
    });
  }

  /** Lets the new version accept connections. */
  go(): void {
    this.conversation.end(goMark);
  }

  reload(): void {
    process.kill(this.pid, 'SIGHUP');
  }
}
