import { closeSync, constants, fstatSync, openSync, write, writeSync } from 'node:fs';
import { DatagramSocket } from '../native/datagram.js';
import { sendMessage } from '../native/descriptor-passing.js';
import type { Carrier } from './line-queue.js';

/** A descriptor to write to. */
interface Target {
  readonly fd: number;
  /**
   * `file`: a write may wait for the disk, so it is left to a thread; `stream`: a pipe or terminal
   * that does not block; `socket`: one that may block, as other processes share it.
   */
  readonly kind: 'file' | 'stream' | 'socket';
  /** It is ours to close. */
  readonly owned: boolean;
}

const { O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants;
const standardErrorFd = 2;

/** Writes to a file, or to the standard error. */
export class DescriptorCarrier implements Carrier {
  readonly joins = true;
  private target: Target;
  /** A thread is writing to the target's descriptor. */
  private writing = false;
  /** Descriptors to close when it is done. */
  private outdated: number[] = [];

  private constructor(private readonly open: () => Target) {
    this.target = open();
  }

  /**
   * Appends to a file, which is made with mode 0600 if it is missing. Throws the system's error.
   */
  static file(path: string): DescriptorCarrier {
    return new DescriptorCarrier(() => {
      const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK;
      const fd = openSync(path, flags, 0o600);
      return { fd, kind: fstatSync(fd).isFile() ? 'file' : 'stream', owned: true };
    });
  }

  static standardError(): DescriptorCarrier {
    return new DescriptorCarrier(standardError);
  }

  /**
   * Opens the file anew, since another may be at its path now. Throws the system's error, and
   * writes to the old on.
   */
  reopen(): void {
    const before = this.target;
    this.target = this.open();
    this.discard(before);
  }

  send(bytes: Buffer, done: (error: NodeJS.ErrnoException | null, taken: number) => void): void {
    if (this.target.kind !== 'file') {
      sendAtOnce(this, bytes, done);
      return;
    }
    this.writing = true;
    write(this.target.fd, bytes, 0, bytes.length, null, (error, taken) => {
      this.writing = false;
      for (const fd of this.outdated.splice(0)) closeSync(fd);
      done(error, error === null ? taken : 0);
    });
  }

  sendNow(bytes: Buffer): number {
    const { fd, kind } = this.target;
    if (kind === 'socket') {
      const sent = sendMessage(fd, bytes, [], null);
      return sent === 'would-block' ? 0 : sent;
    }
    try {
      return writeSync(fd, bytes);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
      throw error;
    }
  }

  close(): void {
    this.discard(this.target);
  }

  private discard({ fd, owned }: Target): void {
    if (!owned) return;
    if (this.writing) this.outdated.push(fd);
    else closeSync(fd);
  }
}

/**
 * The descriptor is shared with the processes that started this one, so it must not be made
 * non-blocking; opened again through /proc it is one of our own, unless it is a socket.
 */
function standardError(): Target {
  const there = fstatSync(standardErrorFd);
  if (there.isSocket()) return { fd: standardErrorFd, kind: 'socket', owned: false };
  if (there.isFile()) return { fd: standardErrorFd, kind: 'file', owned: false };
  try {
    const fd = openSync(`/proc/self/fd/${standardErrorFd}`, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    return { fd, kind: 'stream', owned: true };
  } catch {
    // Another user's terminal: a thread that waits for it is the lesser evil.
    return { fd: standardErrorFd, kind: 'file', owned: false };
  }
}

/** Sends each line as a datagram to a UNIX socket that may come and go. */
export class DatagramCarrier implements Carrier {
  readonly joins = false;
  private readonly socket: DatagramSocket;

  /** Throws NativeError when no socket can be made. */
  constructor(path: string) {
    this.socket = new DatagramSocket(path);
  }

  send(bytes: Buffer, done: (error: NodeJS.ErrnoException | null, taken: number) => void): void {
    sendAtOnce(this, bytes, done);
  }

  sendNow(bytes: Buffer): number {
    const result = this.socket.send(bytes);
    if (result === 'would-block') return 0;
    if (result !== 'sent') throw result;
    return bytes.length;
  }

  close(): void {
    this.socket.close();
  }
}

function sendAtOnce(
  carrier: Carrier,
  bytes: Buffer,
  done: (error: NodeJS.ErrnoException | null, taken: number) => void,
): void {
  let taken: number;
  try {
    taken = carrier.sendNow(bytes);
  } catch (error) {
    done(error as NodeJS.ErrnoException, 0);
    return;
  }
  done(null, taken);
}
