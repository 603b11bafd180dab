import { headerLength, maxDescriptors, maxFrameLength, typeOf, type messageType } from './frame.js';

/** The types of frames that descriptors follow: a peer sends one of them only. */
export type DescriptorFrameType = typeof messageType.callWithFds | typeof messageType.replyWithFds;

/**
 * The peer broke the rules of passing descriptors: which belongs to what is unknown from here on.
 */
export class DescriptorError extends Error {
  readonly code = 'DESCRIPTORS';
}

/** What becomes of a matcher's stream. */
export interface MatcherSink {
  /** The next bytes of frames, with nothing between these. */
  bytes(bytes: Buffer): void;
  /**
   * The descriptors of the next frame of the matcher's type, none if it announces none; told before
   * the frame's last byte. They belong to the sink from now on.
   */
  descriptors(descriptors: number[]): void;
}

/** Bytes of a frame that tell its type, and those that also tell how many descriptors follow it. */
const typeEnd = 20;
const countEnd = headerLength + 4;

/**
 * Takes the descriptors, and the bytes they travel with, out of a stream of frames. A frame's last
 * byte is held back until its descriptors are there, so that whoever cuts the frames finds them
 * together. Source: PROTOCOL.md, "File descriptors".
 */
export class DescriptorMatcher {
  /** Beginning of the frame that is arriving, as far as it is needed. */
  private readonly head = Buffer.alloc(countEnd);
  private headEnd = 0;
  /** Bytes of the frame still to come behind its head. */
  private left = 0;
  /** Descriptors that the frame announces. */
  private announced = 0;
  /** Descriptors still to come behind the frame whose last byte is held back. */
  private awaited = 0;
  private lastByte = Buffer.alloc(1);
  private collected: number[] = [];
  /** A length that no frame has: from there on all is left to whoever cuts the frames. */
  private lost = false;

  constructor(
    private readonly type: DescriptorFrameType,
    private readonly sink: MatcherSink,
  ) {}

  /**
   * Begins in the midst of a stream: of what came before, `held` is the part whose frames were not
   * cut yet, and `left` bytes are to come of a frame that is known not to announce descriptors.
   * Throws DescriptorError.
   */
  follow(held: Buffer, left: number): void {
    this.left = left;
    let at = 0;
    while (at < held.length && !this.lost) {
      at = this.step(held, at);
      if (this.isWhole) throw new DescriptorError('sent descriptors before they were expected');
    }
  }

  /**
   * Takes what one recvmsg(2) brought; the kernel ends it behind a byte that came with descriptors.
   * Those that have been taken are no longer in `descriptors`. Throws DescriptorError.
   */
  push(bytes: Buffer, descriptors: number[]): void {
    const end = bytes.length;
    let passed = 0;
    let at = 0;
    while (at < end && !this.lost) {
      if (this.awaited > 0) {
        this.collect(at === end - 1 ? descriptors : []);
        passed = ++at;
        continue;
      }
      at = this.step(bytes, at);
      if (this.isWhole) {
        this.holdBack(bytes, passed, at);
        passed = at;
      }
    }
    if (descriptors.length > 0) {
      throw new DescriptorError('sent a descriptor with a byte that belongs to none');
    }
    if (passed < end) this.sink.bytes(passed === 0 ? bytes : bytes.subarray(passed));
  }

  /** Gives up descriptors of a frame that did not get all of its own. */
  takeCollected(): number[] {
    return this.collected.splice(0);
  }

  /** Goes on within one frame, to its end at most; gives the position of what follows. */
  private step(bytes: Buffer, at: number): number {
    const end = bytes.length;
    return this.left > 0 ? this.skip(at, end) : this.readHead(bytes, at, end);
  }

  /** A frame that announces descriptors has come, but for these. */
  private get isWhole(): boolean {
    return this.announced > 0 && this.left === 0 && this.headEnd === 0;
  }

  private skip(at: number, end: number): number {
    const length = Math.min(this.left, end - at);
    this.left -= length;
    return at + length;
  }

  private readHead(bytes: Buffer, at: number, end: number): number {
    const { head } = this;
    const wanted = this.headEnd < typeEnd ? typeEnd : countEnd;
    const next = Math.min(end, at + wanted - this.headEnd);
    bytes.copy(head, this.headEnd, at, next);
    this.headEnd += next - at;
    if (this.headEnd < wanted) return next;
    const length = head.readUInt32BE(0);
    if (length < headerLength || length > maxFrameLength) {
      this.lost = true;
    } else if (typeOf(head, 0) !== this.type) {
      this.left = length - typeEnd;
      this.headEnd = 0;
    } else if (length < countEnd) {
      throw new DescriptorError('sent a frame too short for its number of descriptors');
    } else if (wanted === countEnd) {
      this.left = length - countEnd;
      this.headEnd = 0;
      this.announced = this.readCount();
      if (this.announced === 0) this.sink.descriptors([]);
    }
    return next;
  }

  private readCount(): number {
    const count = this.head.readUInt32BE(headerLength);
    if (count > maxDescriptors) {
      throw new DescriptorError(
        `announced ${count} descriptors, allowed are up to ${maxDescriptors}`,
      );
    }
    return count;
  }

  private holdBack(bytes: Buffer, passed: number, end: number): void {
    this.awaited = this.announced;
    this.announced = 0;
    if (passed < end - 1) this.sink.bytes(bytes.subarray(passed, end - 1));
    this.lastByte = Buffer.from(bytes.subarray(end - 1, end));
  }

  private collect(descriptors: number[]): void {
    const [descriptor] = descriptors;
    if (descriptor === undefined || descriptors.length > 1) {
      throw new DescriptorError(
        `sent ${descriptors.length} descriptors with a byte that is to carry one`,
      );
    }
    this.collected.push(descriptor);
    descriptors.length = 0;
    if (--this.awaited > 0) return;
    this.sink.descriptors(this.takeCollected());
    this.sink.bytes(this.lastByte);
  }
}
