import type { DescriptorPassage } from './descriptor-passage.js';

/** What a stream tells its one listener. */
export interface StreamListener {
  /**
   * Bytes arrived: the first `length` of `buffer`, which is overwritten after the call. Copy what
   * must last.
   */
  bytes(buffer: Buffer, length: number): void;
  /**
   * All queued bytes are with the kernel, after `queuedBytes` had reached the stream's high-water
   * mark.
   */
  drained(): void;
  /** Nothing more will come, now or ever; told once. `error` is null when the peer just ended. */
  closed(error: Error | null): void;
}

/**
 * How long the last bytes may take to reach a peer whose connection is being closed, in
 * milliseconds.
 */
export const closingPatience = 2000;

/**
 * A connection as a stream of bytes, whatever carries it: a UNIX socket, TCP, TLS, a SASL layer.
 */
export interface ByteStream {
  /** Bytes written but not yet taken by the kernel. */
  readonly queuedBytes: number;
  /**
   * Whether the peer will send no more. A paused stream is not told so before all that came has
   * been read.
   */
  readonly isLeft: boolean;
  /** Null where descriptors cannot be passed: over TCP, TLS, a SASL layer. */
  readonly passage: DescriptorPassage | null;
  /**
   * Whether `write` is to be given bytes of one frame at a time. libvirt's client waits for its
   * socket and does not look at what TLS has decrypted already, so it would sleep on the second
   * frame of a record.
   */
  readonly separatesFrames: boolean;
  /** Begins to read. */
  listen(listener: StreamListener): void;
  /** Sends the bytes from `start` to `end`; what cannot go out at once is copied. */
  write(bytes: Buffer, start?: number, end?: number): void;
  pause(): void;
  resume(): void;
  /** Sends what is queued, for `closingPatience` at most, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}
