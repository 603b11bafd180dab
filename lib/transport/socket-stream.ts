import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { receive, sendWithDescriptors, type Received } from '../native/descriptor-passing.js';
import { closeDescriptors } from '../native/descriptors.js';
import { readable, writable } from '../native/epoll.js';
import { errnoName, lastErrno, NativeError } from '../native/error.js';
import { hasHungUp } from '../native/hang-up.js';
import { raiseSendBuffer } from '../native/send-buffer.js';
import { receiveNow, sendNow } from '../native/stream-socket.js';
import { connectToPath } from '../native/unix-connection.js';
import { DescriptorError } from '../rpc/descriptor-matcher.js';
import { closingPatience, type ByteStream, type StreamListener } from './byte-stream.js';
import type { DescriptorPassage, DescriptorReceiver } from './descriptor-passage.js';
import { poller, type Polled } from './poller.js';
import { readBuffer } from './read-buffer.js';
import { socketError, type SocketHandle } from './node-socket.js';

/**
 * What a UNIX socket may queue, in the kernel's way of counting, once a write did not fit: two of
 * the frames of 256 KiB in which libvirt sends a volume. TCP sets its own.
 */
const raisedSendBuffer = 512 * 1024;

/**
 * What a waiting descriptor counts as, so that those who look at the queue stop long before a
 * thousand wait.
 */
const descriptorWeight = 4096;

/** Bytes up to which pieces that wait are joined. */
const mostJoined = 64 * 1024;

/** Reads of what a peer still sends to a stream that ends. */
const mostDropped = 4;

/** Milliseconds after which descriptors are sent anew of which too many are on their way. */
const descriptorPause = 20;

const marker = Buffer.alloc(1);

/**
 * A UNIX or TCP socket as ByteStream. What the kernel takes at once goes to it straight from the
 * caller's bytes; only the rest is copied and waits until there is room.
 */
export class SocketStream implements ByteStream, DescriptorPassage, Polled {
  readonly separatesFrames = false;
  /** The socket's number while it is open. */
  readonly fd: number;
  private listener: StreamListener | null = null;
  private receiver: DescriptorReceiver | null = null;
  private isRaised = false;
  private isPaused = true;
  /** The peer will send no more. */
  private hasEnded = false;
  private isClosed = false;
  private readonly poller = poller();
  /** What it looks for. */
  private watched = 0;
  /** Bytes, and descriptors, that wait for room in the socket. */
  private queue: (Buffer | number[])[] = [];
  private queued = 0;
  /** Until descriptors are tried again. */
  private retry: NodeJS.Timeout | null = null;
  /** Until an ending stream is closed. */
  private force: NodeJS.Timeout | null = null;
  private isEnding = false;

  private constructor(
    private readonly handle: SocketHandle,
    private readonly passesDescriptors: boolean,
  ) {
    this.fd = handle.fd;
  }

  /**
   * Makes a stream of an accepted connection, which does not block. It does not read before
   * `listen()`, and passes no descriptors.
   */
  static accepted(handle: SocketHandle): SocketStream {
    return new SocketStream(handle, false);
  }

  /**
   * Makes a stream of a connected socket, a descriptor that is the stream's then and does not
   * block. It does not read before `listen()`.
   */
  static opened(fd: number, passesDescriptors = true): SocketStream {
    return new SocketStream({ fd, close: () => closeSync(fd) }, passesDescriptors);
  }

  /**
   * Connects to the UNIX socket at `path`.
   * @throws the system's error, as node's sockets have it
   */
  static connect(path: string): SocketStream {
    try {
      return SocketStream.opened(connectToPath(path));
    } catch (error) {
      throw error instanceof NativeError ? socketError('connect', error.code, path) : error;
    }
  }

  get queuedBytes(): number {
    return this.queued;
  }

  get passage(): DescriptorPassage | null {
    return this.passesDescriptors ? this : null;
  }

  get isLeft(): boolean {
    return this.isClosed || this.hasEnded || hasHungUp(this.fd);
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
    this.resume();
  }

  receive(receiver: DescriptorReceiver): void {
    this.receiver = receiver;
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    if (this.isClosed || this.isEnding) return;
    const next = this.queue.length > 0 ? start : this.sendNow(bytes, start, end);
    if (next === end) return;
    this.queued += end - next;
    this.queue.push(Buffer.from(bytes.subarray(next, end)));
    this.watch();
  }

  /** What the kernel takes at once, up to the index returned. */
  private sendNow(bytes: Buffer, start: number, end: number): number {
    const next = start + Math.max(sendNow(this.fd, bytes, start, end), 0);
    if (next === end || this.isRaised || !this.passesDescriptors) return next;
    this.isRaised = true;
    raiseSendBuffer(this.fd, raisedSendBuffer);
    return next + Math.max(sendNow(this.fd, bytes, next, end), 0);
  }

  send(descriptors: number[]): void {
    if (this.isClosed || this.isEnding) {
      closeDescriptors(descriptors);
      return;
    }
    this.queued += descriptors.length * descriptorWeight;
    const own = [...descriptors];
    this.queue.push(own);
    if (this.queue.length === 1 && this.sendDescriptors(own)) this.queue.shift();
    else this.watch();
  }

  pause(): void {
    this.isPaused = true;
    this.watch();
  }

  resume(): void {
    this.isPaused = false;
    this.watch();
  }

  end(): void {
    this.listener = null;
    if (this.isClosed || this.isEnding) return;
    this.isEnding = true;
    // What still comes is dropped: bytes left unread would cost a TCP peer our last ones.
    if (this.queue.length === 0) {
      for (let reads = 0; reads < mostDropped && receiveNow(this.fd, readBuffer) > 0; reads++);
      this.close();
      return;
    }
    this.isPaused = false;
    this.watch();
    this.force = setTimeout(() => this.close(), closingPatience).unref();
  }

  destroy(): void {
    this.listener = null;
    this.close();
  }

  /** For the poller only. */
  ready(what: number): void {
    // An error or the end shows to whichever is at work.
    if ((this.watched & readable) !== 0 && (what & ~writable) !== 0) this.read();
    if (this.queue.length > 0 && (what & ~readable) !== 0) this.sendQueue();
  }

  private read(): void {
    if (this.receiver !== null) {
      this.readExactly(this.receiver);
      return;
    }
    const length = receiveNow(this.fd, readBuffer);
    if (length > 0) this.listener?.bytes(readBuffer, length);
    else if (length === 0) this.onEnd();
    else this.onError('read');
  }

  private readExactly(receiver: DescriptorReceiver): void {
    let received: Received | 'would-block';
    try {
      received = receive(this.fd, readBuffer, 0, readBuffer.length);
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      this.fail(socketError('read', error.code));
      return;
    }
    if (received === 'would-block') return;
    if (received.bytes === 0) {
      this.onEnd();
      return;
    }
    const bytes = readBuffer.subarray(0, received.bytes);
    if (!received.isTruncated) receiver.received(bytes, received.descriptors);
    else if (receiver.lost !== undefined) receiver.lost(bytes);
    else this.fail(noRoom());
  }

  private onEnd(): void {
    this.hasEnded = true;
    this.watch();
    const { listener } = this;
    this.listener = null;
    listener?.closed(null);
    this.end();
  }

  private onError(call: string): void {
    const errno = lastErrno();
    if (errno !== constants.errno.EAGAIN && errno !== constants.errno.EINTR) {
      this.fail(socketError(call, errnoName(errno)));
    }
  }

  private fail(error: Error): void {
    const { listener } = this;
    this.listener = null;
    this.close();
    listener?.closed(error);
  }

  private sendQueue(): void {
    for (let item = this.nextQueued(); item !== undefined; item = this.nextQueued()) {
      if (!(Buffer.isBuffer(item) ? this.sendBytes(item) : this.sendDescriptors(item))) {
        this.watch();
        return;
      }
      this.queue.shift();
    }
    if (this.isClosed) return;
    this.watch();
    if (this.isEnding) this.close();
    else this.listener?.drained();
  }

  /** What is to be sent next: small pieces joined, so that each does not cost a call of its own. */
  private nextQueued(): Buffer | number[] | undefined {
    const { queue } = this;
    const pieces: Buffer[] = [];
    let length = 0;
    for (const item of queue) {
      if (!Buffer.isBuffer(item) || length + item.length > mostJoined) break;
      pieces.push(item);
      length += item.length;
    }
    if (pieces.length > 1) queue.splice(0, pieces.length, Buffer.concat(pieces, length));
    return queue[0];
  }

  /** Whether all went. */
  private sendBytes(bytes: Buffer): boolean {
    const taken = sendNow(this.fd, bytes, 0, bytes.length);
    if (taken < 0) {
      this.onError('write');
      return false;
    }
    this.queued -= taken;
    if (taken === bytes.length) return true;
    this.queue[0] = bytes.subarray(taken);
    return false;
  }

  private sendDescriptors(descriptors: number[]): boolean {
    try {
      for (let next = descriptors[0]; next !== undefined; next = descriptors[0]) {
        if (sendWithDescriptors(this.fd, marker, [next]) === 'would-block') return false;
        descriptors.shift();
        this.queued -= descriptorWeight;
        closeDescriptors([next]);
      }
      return true;
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      // Too many of this user's are on their way through sockets: as transient as a full one.
      if (error.code === 'ETOOMANYREFS') {
        this.retry ??= setTimeout(() => {
          this.retry = null;
          this.sendQueue();
        }, descriptorPause);
      } else {
        // Whoever sends them is not told before it has done.
        setImmediate(() => this.fail(socketError('write', error.code)));
      }
      return false;
    }
  }

  private watch(): void {
    let now = 0;
    if (!this.isClosed) {
      if (!this.isPaused && !this.hasEnded) now |= readable;
      if (this.queue.length > 0 && this.retry === null) now |= writable;
    }
    if (now === this.watched) return;
    try {
      this.poller.watch(this.fd, this, this.watched, now);
      this.watched = now;
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      setImmediate(() => this.fail(error));
    }
  }

  private close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.watch();
    this.handle.close();
    if (this.retry !== null) clearTimeout(this.retry);
    if (this.force !== null) clearTimeout(this.force);
    for (const item of this.queue) if (!Buffer.isBuffer(item)) closeDescriptors(item);
    this.queue = [];
    this.queued = 0;
  }
}

const noRoom = (): DescriptorError =>
  new DescriptorError(
    'sent descriptors for which there is no room; raise the limit of open files (LimitNOFILE=, ulimit -n)',
  );
