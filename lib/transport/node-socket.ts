import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { duplicate } from '../native/descriptors.js';
import { hasHungUp } from '../native/hang-up.js';
import { closingPatience } from './byte-stream.js';

/** A connection that nothing has been read from, so that it can be handed to another process. */
export interface SocketHandle {
  readonly fd: number;
  close(): void;
}

/** The handle inside a socket. Node's types do not name it. */
export function handleOf(socket: Socket): SocketHandle {
  return (socket as unknown as { readonly _handle: SocketHandle })._handle;
}

/** Whether the other end of a socket will send no more. */
export function isLeft(socket: Socket): boolean {
  return socket.destroyed || hasHungUp(handleOf(socket).fd);
}

/**
 * Takes the descriptor out of a socket of which nothing was read or written; the socket is no more.
 * @throws {NativeError} EMFILE
 */
export function descriptorOf(socket: Socket): number {
  const fd = duplicate(handleOf(socket).fd);
  socket.destroy();
  return fd;
}

/** Sends what is queued, for `closingPatience` at most, then closes. */
export function endInTime(socket: Socket): void {
  const force = setTimeout(() => socket.destroy(), closingPatience).unref();
  socket.end(() => {
    clearTimeout(force);
    socket.destroy();
  });
}

/** The error of a system call with a socket, in the form that node gives it. */
export function socketError(call: string, code: string, path?: string): NodeJS.ErrnoException {
  const errno = (constants.errno as Readonly<Record<string, number>>)[code] ?? 0;
  const error = new Error([call, code, path].filter((part) => part !== undefined).join(' '));
  return Object.assign(error, { code, errno: -errno, syscall: call });
}
