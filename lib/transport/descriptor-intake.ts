import { closeDescriptors } from '../native/descriptors.js';
import {
  DescriptorError,
  DescriptorMatcher,
  type DescriptorFrameType,
  type MatcherSink,
} from '../rpc/descriptor-matcher.js';
import { typeOf } from '../rpc/frame.js';
import type { Framer, FrameSink } from '../rpc/framer.js';
import type { StreamListener } from './byte-stream.js';
import type { DescriptorReceiver } from './descriptor-passage.js';

/**
 * Stands between a stream and the framer, and between the framer and its sink, of a connection on
 * which descriptors may arrive: while the sink is given a frame, `take()` yields that frame's
 * descriptors. Those that the sink leaves are closed. Whoever makes one lets it be the framer's
 * sink and the receiver of the stream's passage.
 */
export class DescriptorIntake implements DescriptorReceiver, FrameSink, MatcherSink {
  private readonly matcher: DescriptorMatcher;
  private following = false;
  /** Those of frames that the framer has not cut yet, oldest first. */
  private ready: number[][] = [];
  private current: number[] | null = null;
  /** The large frame that is arriving is one that has descriptors. */
  private isLargeOne = false;
  private closed = false;

  /** What the framer holds already need not be whole. */
  constructor(
    private readonly type: DescriptorFrameType,
    private readonly framer: Framer,
    private readonly sink: FrameSink & StreamListener,
  ) {
    this.matcher = new DescriptorMatcher(type, this);
  }

  /**
   * Descriptors of the frame that the sink is being given, which owns them then; null for frames
   * without any.
   */
  take(): number[] | null {
    const { current } = this;
    this.current = null;
    return current;
  }

  /** Whether the stream is read so that no descriptor is lost. */
  get isFollowing(): boolean {
    return this.following;
  }

  /** How many `take()` would yield. */
  get offered(): number {
    return this.current?.length ?? 0;
  }

  /** Closes what nobody has taken, now and later. */
  close(): void {
    this.closed = true;
    for (const descriptors of this.ready.splice(0)) closeDescriptors(descriptors);
    closeDescriptors(this.matcher.takeCollected());
    this.leave();
  }

  received(bytes: Buffer, descriptors: number[]): void {
    try {
      if (this.closed) return;
      if (!this.following) {
        this.following = true;
        this.matcher.follow(this.framer.heldBytes, this.framer.largeBytesLeft);
      }
      this.matcher.push(bytes, descriptors);
    } catch (error) {
      if (!(error instanceof DescriptorError)) throw error;
      this.sink.closed(error);
    } finally {
      closeDescriptors(descriptors);
    }
  }

  bytes(bytes: Buffer): void {
    if (!this.closed) this.sink.bytes(bytes, bytes.length);
  }

  descriptors(descriptors: number[]): void {
    if (this.closed) closeDescriptors(descriptors);
    else this.ready.push(descriptors);
  }

  frame(bytes: Buffer, start: number, length: number): void {
    if (typeOf(bytes, start) === this.type) this.advance();
    this.sink.frame(bytes, start, length);
    this.leave();
  }

  largeFrame(bytes: Buffer, start: number, length: number): boolean {
    this.isLargeOne = typeOf(bytes, start) === this.type;
    return this.sink.largeFrame(bytes, start, length);
  }

  largeBytes(bytes: Buffer, start: number, end: number, last: boolean): void {
    if (last && this.isLargeOne) this.advance();
    this.sink.largeBytes(bytes, start, end, last);
    this.leave();
  }

  private advance(): void {
    this.current = this.ready.shift() ?? [];
  }

  private leave(): void {
    if (this.current !== null) closeDescriptors(this.current);
    this.current = null;
  }
}
