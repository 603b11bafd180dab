import { closeSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import type { AuthMethod, Transport } from '../../control/messages.js';
import { duplicate } from '../../native/descriptors.js';
import {
  acceptNext,
  allowOthers,
  hasWaiting,
  listenOnAddress,
  listenOnPath,
  setBacklog,
} from '../../native/listening-socket.js';
import type { SocketHandle } from '../../transport/node-socket.js';
import { cannotListen } from './listen-error.js';
import { applyModeAndOwner, removeStale, SocketFile, type SocketFilePlan } from './socket-file.js';

/** The part that a listener for libvirt's clients and administrators plays. */
export type ServiceRole = 'rw' | 'ro' | 'admin' | 'tcp' | 'tls';

/** The part a listener plays. */
export type ListenerRole = ServiceRole | 'metrics';

/** What a listener does with the connections it accepts. */
export interface ListenerSettings {
  /** Who is expected: clients of the proxy, administrators, or those who want to see metrics. */
  readonly role: ListenerRole;
  /** It listened before this program did: the service manager opened it, and keeps it. */
  readonly isActivated: boolean;
  readonly transport: Transport;
  readonly auth: AuthMethod;
  readonly readOnly: boolean;
  /** For log lines: the path, or `address:port`. */
  readonly name: string;
  /** Connections the kernel keeps until they are accepted. */
  readonly backlog: number;
}

/** Turns of the event loop in which those who wait for a listener that goes are accepted. */
const lastTurns = 100;

/** An address as node's handles give it. */
export interface HandleAddress {
  address?: string;
  port?: number;
}

/**
 * An accepted connection that nothing has been read from. The methods besides `close` are those of
 * TCP.
 */
export interface Connection extends SocketHandle {
  /** Both fill in the address and return 0, or an error. */
  getpeername?(address: HandleAddress): number;
  getsockname?(address: HandleAddress): number;
  setNoDelay?(on: boolean): void;
  setKeepAlive?(on: boolean, delay: number): void;
}

type ServerHandle = { onconnection: (status: number, connection: Connection) => void };

/**
 * Node's types do not name the class of a connection's handle. Of a TCP or UNIX socket that is no
 * server the type is 0.
 */
interface OpenableConnection extends Connection {
  readonly constructor: new (type: 0) => OpenableConnection;
  /** Takes the descriptor over and returns 0, or an error. */
  open(fd: number): number;
}

/** Connections that one socket is asked for before others have their turn. */
const batch = 64;

/** Who is told of what a listener accepts. */
export interface ListenerEvents {
  onConnection(listener: Listener, connection: Connection): void;
  onAcceptError(listener: Listener, error: Error): void;
}

/** A listening socket on its way to the successor. */
export interface InheritedListener {
  readonly settings: ListenerSettings;
  readonly fd: number;
  /** The file to remove at the end. */
  readonly path: string | null;
}

/**
 * One listening socket. It holds the kernel's socket by a descriptor of its own, so that accepting
 * can stop and go on, or pass to another process, without losing a connection that waits.
 */
export class Listener {
  private server: Server | null = null;

  private constructor(
    public settings: ListenerSettings,
    readonly fd: number,
    /** The file to remove when listening ends; null when it is not ours to remove. */
    private readonly file: SocketFile | null,
  ) {}

  /** Listens on a UNIX socket; a stale file of that name is replaced. Throws ListenError. */
  static async onPath(settings: ListenerSettings, plan: SocketFilePlan): Promise<Listener> {
    const { path } = plan;
    await removeStale(path);
    // Nobody may connect before mode and owner are as they should be.
    const before = process.umask(0o177);
    try {
      const fd = listenOnPath(path, settings.backlog);
      const listener = new Listener(settings, fd, SocketFile.at(path));
      applyModeAndOwner(plan);
      return listener;
    } catch (error) {
      throw cannotListen(path, error);
    } finally {
      process.umask(before);
    }
  }

  /**
   * Listens on TCP, even where one of `rivals` does already, which are to be closed soon. Throws
   * ListenError.
   */
  static onAddress(
    settings: ListenerSettings,
    address: string,
    port: number,
    rivals: readonly Listener[] = [],
  ): Listener {
    const besideOthers = rivals.length > 0;
    try {
      for (const { fd } of rivals) allowOthers(fd, true);
      const fd = listenOnAddress(address, port, settings.backlog, { besideOthers });
      if (besideOthers) allowOthers(fd, false);
      return new Listener(settings, fd, null);
    } catch (error) {
      throw cannotListen(settings.name, error);
    } finally {
      for (const { fd } of rivals) allowOthers(fd, false);
    }
  }

  /**
   * Takes over a socket that listens already; `path` names a file that is ours to remove, unless it
   * is shared.
   */
  static inherited(settings: ListenerSettings, fd: number, path: string | null): Listener {
    return new Listener(settings, fd, path === null ? null : SocketFile.at(path));
  }

  /**
   * Begins to accept, or goes on. Nothing is read from a connection before it is handed to a
   * worker.
   */
  accept(events: ListenerEvents): void {
    if (this.server !== null) return;
    const server = createServer();
    server.on('error', (error) => events.onAcceptError(this, error));
    server.listen({ fd: duplicate(this.fd) });
    // Node would make a Socket of each connection, which costs more than all that is done here for
    // one.
    const { _handle: handle } = server as unknown as { readonly _handle: ServerHandle };
    const failed = handle.onconnection.bind(handle);
    handle.onconnection = (status, connection) => {
      if (status !== 0) {
        failed(status, connection);
        return;
      }
      this.accepted(connection, events);
      this.acceptMore(server, connection as OpenableConnection, events);
    };
    // Node listens with a backlog of its own on a socket it was given.
    setBacklog(this.fd, this.settings.backlog);
    this.server = server;
  }

  private accepted(connection: Connection, events: ListenerEvents): void {
    // They are the socket's own and go with it to the worker.
    connection.setNoDelay?.(true);
    connection.setKeepAlive?.(true, 0);
    events.onConnection(this, connection);
  }

  /**
   * Node accepts one connection in a turn of its event loop. When strangers come faster than that,
   * all others would wait behind them in the kernel's queue.
   */
  private acceptMore(server: Server, first: OpenableConnection, events: ListenerEvents): void {
    for (let count = 1; count < batch && this.server === server; count++) {
      const fd = acceptNext(this.fd);
      if (fd === null) return;
      const connection = new first.constructor(0);
      if (connection.open(fd) === 0) this.accepted(connection, events);
      else closeSync(fd);
    }
  }

  /** Stops accepting; what waits in the kernel's queue stays there. */
  pause(): void {
    this.server?.close();
    this.server = null;
  }

  /** Takes the socket's file out of sight, so that nobody new connects; `show` brings it back. */
  hide(): void {
    this.file?.hide();
  }

  show(): void {
    this.file?.show();
  }

  /** Leaves the socket's file to another process that listens on it too, or takes it back. */
  share(shared: boolean): void {
    this.file?.share(shared);
  }

  /** Whether somebody waits to be accepted. */
  get isWaitedFor(): boolean {
    return hasWaiting(this.fd);
  }

  /** As `close`, but whoever has connected by now is still accepted. */
  retire(): void {
    this.file?.remove();
    const closeWhenEmpty = (turns: number): void => {
      if (this.server === null || turns === 0 || !this.isWaitedFor) this.close();
      else setImmediate(closeWhenEmpty, turns - 1);
    };
    closeWhenEmpty(lastTurns);
  }

  /** The file to remove at the end, for the process that takes the socket over. */
  get path(): string | null {
    return this.file?.path ?? null;
  }

  /** Stops listening and removes the socket's file, if it is still ours. */
  close(): void {
    this.pause();
    this.file?.remove();
    closeSync(this.fd);
  }
}
