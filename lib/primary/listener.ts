import { chmodSync, chownSync, closeSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { AuthMethod, Transport } from '../control/messages.js';
import {
  duplicate,
  listenOnAddress,
  listenOnPath,
  setBacklog,
} from '../native/listening-socket.js';

/** What a listener does with the connections it accepts. */
export interface ListenerSettings {
  /** Who is expected: clients of the proxy, or administrators. */
  readonly serves: 'clients' | 'admin';
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

const hiddenSuffix = '.closing';

/** How a UNIX socket's file is to be. */
export interface SocketFile {
  readonly path: string;
  readonly mode: number;
  /** A group's number; null leaves it. */
  readonly group: number | null;
}

/** Who is told of what a listener accepts. */
export interface ListenerEvents {
  connected(listener: Listener, socket: Socket): void;
  failed(listener: Listener, error: Error): void;
}

/**
 * One listening socket. It holds the kernel's socket by a descriptor of its own, so that accepting can stop and go on,
 * or pass to another process, without losing a connection that waits.
 */
export class Listener {
  private server: Server | null = null;

  private constructor(
    public settings: ListenerSettings,
    readonly fd: number,
    /** The file to remove when listening ends; null when it is not ours to remove. */
    private file: { readonly path: string; readonly inode: number } | null,
  ) {}

  /** Listens on a UNIX socket; a stale file of that name is replaced. Throws ListenError. */
  static async onPath(settings: ListenerSettings, file: SocketFile): Promise<Listener> {
    const { path } = file;
    await removeStale(path);
    // Nobody may connect before mode and group are as they should be.
    const before = process.umask(0o177);
    try {
      const fd = listenOnPath(path, settings.backlog);
      const listener = new Listener(settings, fd, { path, inode: statSync(path).ino });
      listener.dress(file);
      return listener;
    } catch (error) {
      throw cannotListen(path, error);
    } finally {
      process.umask(before);
    }
  }

  /** Throws ListenError. */
  static onAddress(settings: ListenerSettings, address: string, port: number): Listener {
    try {
      return new Listener(settings, listenOnAddress(address, port, settings.backlog), null);
    } catch (error) {
      throw cannotListen(settings.name, error);
    }
  }

  /** Takes over a socket that listens already; `path` names a file that is ours to remove. */
  static inherited(settings: ListenerSettings, fd: number, path: string | null): Listener {
    const inode = path === null ? undefined : statSync(path, { throwIfNoEntry: false })?.ino;
    const file = path === null || inode === undefined ? null : { path, inode };
    return new Listener(settings, fd, file);
  }

  /** Begins to accept, or goes on. Nothing is read from a connection before it is handed to a worker. */
  accept(events: ListenerEvents): void {
    if (this.server !== null) return;
    const server = createServer({ pauseOnConnect: true }, (socket) =>
      events.connected(this, socket),
    );
    server.on('error', (error) => events.failed(this, error));
    server.listen({ fd: duplicate(this.fd) });
    // Node listens with a backlog of its own on a socket it was given.
    setBacklog(this.fd, this.settings.backlog);
    this.server = server;
  }

  /** Stops accepting; what waits in the kernel's queue stays there. */
  pause(): void {
    this.server?.close();
    this.server = null;
  }

  /** Applies mode and group of a UNIX socket's file. */
  dress({ path, mode, group }: SocketFile): void {
    if (group !== null) chownSync(path, -1, group);
    chmodSync(path, mode);
  }

  /** Takes the socket's file out of sight, so that nobody new connects; `show` brings it back. */
  hide(): void {
    this.rename('', hiddenSuffix);
  }

  show(): void {
    this.rename(hiddenSuffix, '');
  }

  /** Leaves socket and file to another process that listens on them too. */
  handOver(): void {
    this.file = null;
  }

  /** The file to remove at the end, for the process that takes the socket over. */
  get path(): string | null {
    return this.file?.path ?? null;
  }

  /** Stops listening and removes the socket's file, if it is still ours. */
  close(): void {
    this.pause();
    closeSync(this.fd);
    if (this.file === null) return;
    const { path, inode } = this.file;
    for (const name of [path, path + hiddenSuffix]) {
      if (statSync(name, { throwIfNoEntry: false })?.ino === inode) unlinkSync(name);
    }
  }

  private rename(from: string, to: string): void {
    if (this.file === null) return;
    const { path, inode } = this.file;
    if (statSync(path + from, { throwIfNoEntry: false })?.ino === inode) {
      renameSync(path + from, path + to);
    }
  }
}

function cannotListen(name: string, error: unknown): ListenError {
  if (error instanceof ListenError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new ListenError(`Cannot listen on '${name}': ${reason}`, { cause: error });
}

/** Removes a socket file that nobody listens on. Throws ListenError when somebody does. */
async function removeStale(path: string): Promise<void> {
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
