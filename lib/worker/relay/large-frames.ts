import { closeDescriptors } from '../../native/descriptors.js';
import { messageType, typeOf } from '../../rpc/frame.js';
import type { DaemonLink } from '../daemon/link.js';
import { socketClosed } from './answers.js';
import type { DaemonSet } from './daemon-set.js';

/** The relay whose client sends them. */
export interface LargeFramesRelay {
  /** A call has to wait: for room, or behind others. */
  readonly mustWait: boolean;
  /** A large call goes to this link, or, null, nowhere because of `failure`. */
  onLargeCall(bytes: Buffer, start: number, link: DaemonLink | null, failure: unknown): void;
}

/** A large call of the client that waits, with all behind it, because its link is being opened. */
interface WaitingLarge {
  readonly link: DaemonLink;
  /** Why its daemon could not be opened, once that is known. */
  failure: unknown;
}

/**
 * The way of a client's large frames, which are passed on as their bytes arrive. One that cannot go
 * on yet keeps the client from being read.
 */
export class LargeFrames {
  private waiting: WaitingLarge | null = null;
  /** Where the one that is arriving goes; null when it is skipped. */
  private target: DaemonLink | null = null;

  constructor(
    private readonly links: Pick<DaemonSet, 'find' | 'known'>,
    private readonly relay: LargeFramesRelay,
  ) {}

  /** The one that waits will not be served: it may come, to be answered. */
  get hasFailed(): boolean {
    return (this.waiting?.failure ?? null) !== null;
  }

  /** The header of a frame; false asks to hold the client back until `retryLarge`. */
  begin(bytes: Buffer, start: number): boolean {
    const type = typeOf(bytes, start);
    const isOfStream = type === messageType.stream || type === messageType.streamHole;
    return isOfStream ? this.beginStreamFrame(bytes, start) : this.beginCall(bytes, start);
  }

  /** `descriptors` are those of a call, with its last bytes. */
  pass(
    bytes: Buffer,
    start: number,
    end: number,
    last: boolean,
    descriptors: number[] | null,
  ): void {
    const { target } = this;
    target?.forwardPart(bytes, start, end);
    if (descriptors !== null) {
      if (target === null) closeDescriptors(descriptors);
      else target.sendDescriptors(descriptors, true);
    }
    if (last) target?.endLarge();
  }

  /** A link has lost its daemon: what is still to come of its frame is skipped. */
  onLost(link: DaemonLink): void {
    if (this.target === link) this.target = null;
  }

  /** A link could not be opened. */
  onFailed(link: DaemonLink, failure: unknown): void {
    if (this.waiting?.link === link) this.waiting.failure = failure;
  }

  private beginStreamFrame(bytes: Buffer, start: number): boolean {
    const link = this.links.known(bytes, start);
    this.target = link?.carries(bytes, start) === true ? link : null;
    this.target?.beginLarge();
    return true;
  }

  private beginCall(bytes: Buffer, start: number): boolean {
    const failure = this.waiting?.failure ?? null;
    if (failure === null && this.relay.mustWait) return false;
    this.waiting = null;
    const link = failure === null ? this.links.find(bytes, start) : null;
    if (link?.state === 'opening' || link?.state === 'away') {
      this.waiting = { link, failure: null };
      link.openAgain();
      return false;
    }
    this.target = link?.state === 'open' ? link : null;
    this.relay.onLargeCall(bytes, start, this.target, failure ?? socketClosed);
    this.target?.beginLarge();
    return true;
  }
}
