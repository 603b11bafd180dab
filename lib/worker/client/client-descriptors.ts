import { messageType } from '../../rpc/frame.js';
import type { Framer, FrameSink } from '../../rpc/framer.js';
import type { ByteStream, StreamListener } from '../../transport/byte-stream.js';
import { DescriptorIntake } from '../../transport/descriptor-intake.js';

/**
 * The descriptors that a client sends with its calls, from the time on when it has asked whether it
 * may.
 */
export class ClientDescriptors {
  private intake: DescriptorIntake | null = null;

  constructor(
    private readonly framer: Framer,
    private readonly session: FrameSink & StreamListener,
  ) {}

  /** Has the client's stream read so that no descriptor is lost; false where none can come. */
  expect({ passage }: ByteStream): boolean {
    if (passage === null) return false;
    if (this.intake === null) {
      this.intake = new DescriptorIntake(messageType.callWithFds, this.framer, this.session);
      this.framer.redirect(this.intake);
      passage.receive(this.intake);
    }
    return true;
  }

  /** Whether the client's stream is read so from the first byte of what it sends now on. */
  get isFollowing(): boolean {
    return this.intake?.isFollowing === true;
  }

  /** How many came with the frame that is being dealt with. */
  get offered(): number {
    return this.intake?.offered ?? 0;
  }

  /**
   * Those of the call that is being dealt with; they belong to the caller. Null when it brought
   * none.
   */
  take(): number[] | null {
    return this.intake?.take() ?? null;
  }

  close(): void {
    this.intake?.close();
  }
}
