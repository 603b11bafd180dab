import { errorText } from '../error-text.js';
import type { ByteStream, StreamListener } from './byte-stream.js';

/**
 * A security layer between a stream and its socket. Both directions throw when the layer is broken.
 */
export interface SecurityLayer {
  encode(bytes: Buffer): Buffer[];
  decode(bytes: Buffer): Buffer;
}

/** The peer, or somebody on the way, broke the layer's rules. */
export class LayerError extends Error {
  readonly code = 'LAYER';
}

/** A stream whose bytes pass through a security layer: SASL on plain TCP. */
export class LayeredStream implements ByteStream {
  readonly passage = null;
  private listener: StreamListener | null = null;

  constructor(
    private readonly inner: ByteStream,
    private readonly layer: SecurityLayer,
  ) {}

  get queuedBytes(): number {
    return this.inner.queuedBytes;
  }

  /**
   * The layer itself needs no such care: libvirt's client looks at what it has decoded before it
   * sleeps.
   */
  get separatesFrames(): boolean {
    return this.inner.separatesFrames;
  }

  get isLeft(): boolean {
    return this.inner.isLeft;
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
    this.inner.listen({
      bytes: (buffer, length) => this.received(buffer.subarray(0, length)),
      drained: () => listener.drained(),
      closed: (error) => listener.closed(error),
    });
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    try {
      for (const packet of this.layer.encode(bytes.subarray(start, end))) this.inner.write(packet);
    } catch (error) {
      this.fail(error);
    }
  }

  pause(): void {
    this.inner.pause();
  }

  resume(): void {
    this.inner.resume();
  }

  end(): void {
    this.inner.end();
  }

  destroy(): void {
    this.inner.destroy();
  }

  private received(chunk: Buffer): void {
    let clear: Buffer;
    try {
      clear = this.layer.decode(chunk);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (clear.length > 0) this.listener?.bytes(clear, clear.length);
  }

  private fail(error: unknown): void {
    this.inner.destroy();
    const reason = errorText(error);
    this.listener?.closed(new LayerError(`broke the SASL layer: ${reason}`, { cause: error }));
  }
}
