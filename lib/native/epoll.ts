import { closeSync } from 'node:fs';
import { duplicateOnto, setCloseOnExec } from './descriptors.js';
import { systemError } from './error.js';
import { libcFunction } from './library.js';

// EPOLL_CLOEXEC
const closeOnExec = 0o2000000;
const operation = { add: 1, remove: 2, modify: 3 } as const;

/** EPOLLIN and EPOLLOUT; the kernel adds EPOLLERR and EPOLLHUP without being asked. */
export const readable = 0x1;
export const writable = 0x4;

// struct epoll_event: uint32_t events; then 64 bits of the caller's, which hold the descriptor.
// Packed on x86 alone.
const eventWords = process.arch === 'x64' ? 3 : 4;
const dataWord = process.arch === 'x64' ? 1 : 2;

const create = libcFunction<(flags: number) => number>('int epoll_create1(int flags)');
const control = libcFunction<
  (epoll: number, operation: number, fd: number, event: Uint32Array) => number
>('int epoll_ctl(int epoll, int operation, int fd, void *event)');
const wait = libcFunction<
  (epoll: number, events: Uint32Array, most: number, milliseconds: number) => number
>('int epoll_wait(int epoll, void *events, int most, int milliseconds)');

/** How many descriptors one `poll` tells of. */
const mostEvents = 256;

// One for all calls: it is filled and read before anything else runs.
const event = new Uint32Array(eventWords);

/** Descriptors whose readiness is asked for together (epoll(7)), level-triggered. */
export class Epoll {
  private descriptor: number;
  private readonly events = new Uint32Array(eventWords * mostEvents);

  /** @throws {NativeError} EMFILE, ENFILE, ENOMEM */
  constructor() {
    this.descriptor = create(closeOnExec);
    if (this.descriptor < 0) throw systemError('epoll_create1', 'an epoll instance');
  }

  /** Readable while one of those looked at is ready. */
  get fd(): number {
    return this.descriptor;
  }

  /**
   * Changes what is looked for at a descriptor, from `before` to `now`: `readable`, `writable`,
   * both, or 0 for nothing, not even its end. It must be nothing before the descriptor is closed.
   * @throws {NativeError} ENOSPC, ENOMEM
   */
  watch(fd: number, before: number, now: number): void {
    event[0] = now;
    event[dataWord] = fd;
    const change = before === 0 ? operation.add : now === 0 ? operation.remove : operation.modify;
    if (control(this.descriptor, change, fd, event) < 0)
      throw systemError('epoll_ctl', `descriptor ${fd}`);
  }

  /**
   * Calls `ready` with each descriptor that is, and for what, without waiting; with as many as fit
   * in one look, the others come with the next. One that has been closed meanwhile may be among
   * them.
   */
  poll(ready: (fd: number, what: number) => void): void {
    const { events } = this;
    const count = wait(this.descriptor, events, mostEvents, 0);
    for (let at = 0; at < count * eventWords; at += eventWords) {
      ready(events[at + dataWord] as number, events[at] as number);
    }
  }

  /** Moves the instance to another descriptor, which then is it: what that was is closed. */
  moveTo(fd: number): void {
    duplicateOnto(this.descriptor, fd);
    setCloseOnExec(fd, true);
    closeSync(this.descriptor);
    this.descriptor = fd;
  }
}
