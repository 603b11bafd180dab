import { chmodSync, chownSync, closeSync, statSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { AuthMethod, Transport } from '../control/messages.js';
import { groupId } from '../native/accounts.js';
import { duplicate, listenOnPath } from '../native/listening-socket.js';

/** A listening socket as the configuration wants it. */
export interface ListenerSettings {
  readonly transport: Transport;
  readonly auth: AuthMethod;
  readonly readOnly: boolean;
  /** For log lines: the path, or `address:port`. */
  readonly name: string;
  /** Connections the kernel keeps until they are accepted. */
  readonly backlog: number;
}

/** A socket cannot be listened on; the sentence names it. */
export class ListenError extends Error {
  readonly code = 'LISTEN';
}

/** How a UNIX socket's file is to be. */
export interface SocketFile {
  readonly path: string;
  readonly mode: number;
  /** A group's name; null leaves it. */
  readonly group: string | null;
}

/**
 * One listening socket. It holds the kernel's socket by a descriptor of its own, so that accepting can stop and go on
 * without losing a connection that waits.
 */
export class Listener {
  private server: Server | null = null;

  private constructor(
    readonly settings: ListenerSettings,
    private readonly fd: number,
    private readonly file: { path: string; inode: number } | null,
  ) {}

  /** Listens on a UNIX socket; a stale file of that name is replaced. Throws ListenError. */
  static async onPath(settings: ListenerSettings, file: SocketFile): Promise<Listener> {
    const { path, mode, group } = file;
    await removeStale(path);
    const before = process.umask(0o177);
    try {
      const fd = listenOnPath(path, settings.backlog);
      if (group !== null) chownSync(path, -1, knownGroup(group, path));
      chmodSync(path, mode);
      return new Listener(settings, fd, { path, inode: statSync(path).ino });
    } catch (error) {
      if (error instanceof ListenError) throw error;
      throw new ListenError(`Cannot listen on '${path}': ${(error as Error).message}`, {
        cause: error,
      });
    } finally {
      process.umask(before);
    }
  }

  /** Begins to accept, or goes on. Connections are handed over before anything is read from them. */
  accept(
    connected: (listener: Listener, socket: Socket) => void,
    failed: (error: Error) => void,
  ): void {
    if (this.server !== null) return;
    const server = createServer({ pauseOnConnect: true }, (socket) => connected(this, socket));
    server.on('error', failed);
    server.listen({ fd: duplicate(this.fd), backlog: this.settings.backlog });
    this.server = server;
  }

  /** Stops accepting; what waits in the kernel's queue stays there. */
  pause(): void {
    this.server?.close();
    this.server = null;
  }

  /** Stops listening and removes the socket's file, if it is still ours. */
  close(): void {
    this.pause();
    closeSync(this.fd);
    if (this.file === null) return;
    const { path, inode } = this.file;
    if (statSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path);
  }
}

function knownGroup(group: string, path: string): number {
  const id = groupId(group);
  if (id !== null) return id;
  throw new ListenError(
    `Cannot give '${path}' to the group '${group}' (unix_sock_group): no such group`,
  );
}

/** Removes a socket file that nobody listens on. Throws ListenError when somebody does. */
async function removeStale(path: string): Promise<void> {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket())
    throw new ListenError(`Cannot listen on '${path}': it is no socket; remove it`);
  const answers = await new Promise<boolean>((resolve) => {
    const probe = createConnection({ path });
    const answer = (value: boolean) => (): void => {
      probe.destroy();
      resolve(value);
    };
    probe.once('connect', answer(true));
    probe.once('error', answer(false));
  });
  if (answers) {
    throw new ListenError(
      `Cannot listen on '${path}': another process listens there; stop libvirtd or the other virtproxyd first`,
    );
  }
  unlinkSync(path);
}
