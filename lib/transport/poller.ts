import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { Epoll } from '../native/epoll.js';
import { makeStreamSocket } from '../native/unix-connection.js';
import { handleOf } from './node-socket.js';

/** What node's handle of a socket can do besides; its types do not name it. */
interface ReadableHandle {
  /** Called when the socket is readable, after an attempt to read into the user's buffer. */
  onread: () => void;
  useUserBuffer(buffer: Buffer): void;
}

/** Whoever waits until a socket can be read from or written to. */
export interface Polled {
  /** `what` is made of `readable` and `writable`, and of an error or end that may have come. */
  ready(what: number): void;
}

/**
 * Tells sockets when they can go on. libuv watches one descriptor, that of an epoll instance, and
 * all sockets that are ready are served in one go from there: node's own way from libuv to a
 * socket's listener costs as much as the kernel's part of a small read.
 */
class Poller {
  private readonly epoll: Epoll;
  private readonly polled: (Polled | undefined)[] = [];
  private readonly socket: Socket;
  private size = 0;

  constructor() {
    // Node makes handles of sockets and the like alone, so that the instance takes the place of
    // one.
    const fd = makeStreamSocket();
    try {
      this.epoll = new Epoll();
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.socket = new Socket({ fd, writable: false });
    this.epoll.moveTo(fd);
    const handle = handleOf(this.socket) as unknown as ReadableHandle;
    // Given no room to read, libuv only tells that the descriptor is readable.
    handle.useUserBuffer(Buffer.alloc(0));
    const ready = (fd: number, what: number): void => this.polled[fd]?.ready(what);
    handle.onread = () => this.epoll.poll(ready);
    this.socket.resume();
    this.socket.unref();
  }

  /**
   * Changes what is looked for, as {@link Epoll.watch} does. While there is something the process
   * does not end by itself.
   */
  watch(fd: number, polled: Polled, before: number, now: number): void {
    this.epoll.watch(fd, before, now);
    if (before === 0 && this.size++ === 0) this.socket.ref();
    if (now === 0 && --this.size === 0) this.socket.unref();
    this.polled[fd] = now === 0 ? undefined : polled;
  }
}

let shared: Poller | null = null;

/** The poller of this process, made at its first use. */
export const poller = (): Poller => (shared ??= new Poller());
