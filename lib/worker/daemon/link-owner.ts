import type { Logger } from '../../logging/logger.js';
import type { CallHeader } from '../../rpc/frame.js';
import type { TypedParameter } from '../../rpc/typed-parameters.js';
import type { Connect } from './connection.js';
import type { DaemonRestarts } from './restarts.js';

/** What a link needs of the relay it belongs to. */
export interface LinkOwner<Link> {
  /** A frame for the client. */
  fromDaemon(link: Link, bytes: Buffer, start: number, end: number): void;
  /** A whole reply for the client, with its descriptors, which belong to the owner from now on. */
  replyWithDescriptors(
    link: Link,
    bytes: Buffer,
    start: number,
    end: number,
    descriptors: number[],
  ): void;
  /** The descriptors of the large reply that has just been passed on whole. */
  largeReplyDescriptors(link: Link, descriptors: number[]): void;
  /**
   * May the link begin a frame whose bytes are still arriving? If not, the relay calls `retry()`
   * later.
   */
  claimClient(link: Link): boolean;
  /** The large frame that was claimed for is through. */
  releaseClient(link: Link): void;
  /** A call of the link was answered; the reply's header lies in `bytes` from `start`. */
  answered(link: Link, bytes: Buffer, start: number): void;
  /** A chunk from the daemon has been dealt with: time to send what was collected. */
  turnEnded(link: Link): void;
  /** The daemon takes bytes again. */
  drained(link: Link): void;
  /**
   * The connection is gone. `calls` and `streams` will get no answer from the daemon; others wait
   * for its return.
   */
  lost(link: Link, loss: Loss): void;
  /** The link is open again: calls that waited for that are to be forwarded. */
  reopened(link: Link): void;
  /**
   * The daemon has not come back in time, or not as it was: `repeated` had been forwarded before,
   * others only waited.
   */
  stayedAway(link: Link, error: unknown, repeated: readonly CallHeader[]): void;
}

/** What went with a connection. */
export interface Loss {
  readonly reason: string;
  readonly calls: readonly CallHeader[];
  readonly streams: readonly CallHeader[];
}

/** What all links of a client share. */
export interface LinkSettings {
  readonly connect: Connect;
  readonly identity: () => readonly TypedParameter[];
  readonly openTimeoutSeconds: number;
  readonly restarts: DaemonRestarts;
  readonly log: Logger;
}
