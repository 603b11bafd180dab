import { closeSync } from 'node:fs';
import type { AuthMethod, Transport } from '../../control/messages.js';
import { setNonBlocking } from '../../native/descriptors.js';
import { readable } from '../../native/epoll.js';
import { NativeError } from '../../native/error.js';
import {
  acceptNext,
  allowOthers,
  hasWaiting,
  listenOnAddress,
  listenOnPath,
  setBacklog,
  tuneConnection,
} from '../../native/listening-socket.js';
import { poller, type Polled } from '../../transport/poller.js';
import { AcceptedConnection, type Connection } from './connection.js';
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

/** Connections that one socket is asked for before others have their turn. */
const batch = 64;

/** What accept(2) fails with for a connection that has ended while it waited. */
const leftErrors: ReadonlySet<string> = new Set([
  ...['ECONNABORTED', 'EINTR', 'EPERM', 'EPROTO', 'ENETDOWN', 'ENOPROTOOPT', 'EHOSTDOWN'],
  ...['ENONET', 'EHOSTUNREACH', 'EOPNOTSUPP', 'ENETUNREACH'],
]);

/** Milliseconds for which nothing is accepted after any other error. */
const errorPause = 1000;

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
export class Listener implements Polled {
  /** Who is told, while it accepts. */
  private events: ListenerEvents | null = null;
  /** Until accepting goes on after an error. */
  private retry: NodeJS.Timeout | null = null;

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
    // A service manager's sockets wait for whoever accepts.
    setNonBlocking(fd);
    return new Listener(settings, fd, path === null ? null : SocketFile.at(path));
  }

  /**
   * Begins to accept, or goes on. Nothing is read from a connection before it is handed to a
   * worker.
   */
  accept(events: ListenerEvents): void {
    if (this.events !== null) return;
    // What it was opened with may have been meant for others, or for another max_queued_clients.
    setBacklog(this.fd, this.settings.backlog);
    poller().watch(this.fd, this, 0, readable);
    this.events = events;
  }

  /** For the poller only. */
  ready(): void {
    for (let count = 0; count < batch && this.events !== null; count++) {
      const { events } = this;
      const fd = this.next(events);
      if (fd === null) return;
      if (fd !== 'left') events.onConnection(this, new AcceptedConnection(fd));
    }
  }

  /** The next connection; `left` for one that is gone already, null when none can be had. */
  private next(events: ListenerEvents): number | 'left' | null {
    try {
      const fd = acceptNext(this.fd);
      if (fd !== null && this.settings.transport !== 'unix') tuneConnection(fd);
      return fd;
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      if (leftErrors.has(error.code)) return 'left';
      events.onAcceptError(this, error);
      this.pause();
      this.retry = setTimeout(() => this.accept(events), errorPause);
      return null;
    }
  }

  /** Stops accepting; what waits in the kernel's queue stays there. */
  pause(): void {
    if (this.events !== null) poller().watch(this.fd, this, readable, 0);
    this.events = null;
    if (this.retry !== null) clearTimeout(this.retry);
    this.retry = null;
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
      if (this.events === null || turns === 0 || !this.isWaitedFor) this.close();
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
