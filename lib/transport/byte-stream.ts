/** What a stream tells its one listener. */
export interface StreamListener {
  /** Bytes arrived. `chunk` is overwritten after the call: copy what must last. */
  bytes(chunk: Buffer): void;
  /** All queued bytes are with the kernel, after `queuedBytes` had reached the stream's high-water mark. */
  drained(): void;
  /** Nothing more will come, now or ever; told once. `error` is null when the peer just ended. */
  closed(error: Error | null): void;
}

/** A connection as a stream of bytes, whatever carries it: a UNIX socket, TCP, TLS, a SASL layer. */
export interface ByteStream {
  /** Bytes written but not yet taken by the kernel. */
  readonly queuedBytes: number;
  /** Begins to read. */
  listen(listener: StreamListener): void;
  /** `chunk` belongs to the stream from now on. */
  write(chunk: Buffer): void;
  pause(): void;
  resume(): void;
  /** Sends what is queued, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}
