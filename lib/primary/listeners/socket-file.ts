import { chmodSync, chownSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { ListenError } from './listen-error.js';

/** How a UNIX socket's file is to be. */
export interface SocketFilePlan {
  readonly path: string;
  readonly mode: number;
  /** A group's number; null is our own. */
  readonly group: number | null;
}

/** Gives the file of a UNIX socket its mode and owner. Throws a system error. */
export function applyModeAndOwner({ path, mode, group }: SocketFilePlan): void {
  chownSync(path, -1, group ?? process.getegid?.() ?? -1);
  chmodSync(path, mode);
}

const hiddenSuffix = '.closing';

/**
 * The file of a UNIX socket that is ours to remove. A file that somebody else has put in its place
 * since is left alone.
 */
export class SocketFile {
  /** Another process listens on the socket too, and the file is for that one to remove. */
  private shared = false;

  private constructor(
    readonly path: string,
    private readonly inode: number,
  ) {}

  /** The one of that name; null when there is none. */
  static at(path: string): SocketFile | null {
    const inode = statSync(path, { throwIfNoEntry: false })?.ino;
    return inode === undefined ? null : new SocketFile(path, inode);
  }

  /** Leaves it to another process that listens on the socket too, or takes it back. */
  share(shared: boolean): void {
    this.shared = shared;
  }

  /** Takes it out of sight, so that nobody new connects; `show` brings it back. */
  hide(): void {
    this.rename('', hiddenSuffix);
  }

  show(): void {
    this.rename(hiddenSuffix, '');
  }

  remove(): void {
    if (this.shared) return;
    for (const name of [this.path, this.path + hiddenSuffix]) {
      if (this.isAt(name)) unlinkSync(name);
    }
  }

  private rename(from: string, to: string): void {
    if (!this.shared && this.isAt(this.path + from)) renameSync(this.path + from, this.path + to);
  }

  private isAt(name: string): boolean {
    return statSync(name, { throwIfNoEntry: false })?.ino === this.inode;
  }
}

/** Removes a socket file that nobody listens on. Throws ListenError when somebody does. */
export async function removeStale(path: string): Promise<void> {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket()) {
    throw new ListenError(`Cannot listen on '${path}': it is no socket; remove it`);
  }
  if (await isListenedOn(path)) {
    throw new ListenError(
      `Cannot listen on '${path}': another process listens there; stop libvirtd or the other virtproxyd first`,
    );
  }
  unlinkSync(path);
}

function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection({ path });
    const answer = (value: boolean) => (): void => {
      probe.destroy();
      resolve(value);
    };
    probe.once('connect', answer(true));
    // Only a refused connection means that nobody is there: a full queue belongs to somebody.
    probe.once('error', (error: NodeJS.ErrnoException) => answer(error.code !== 'ECONNREFUSED')());
  });
}
