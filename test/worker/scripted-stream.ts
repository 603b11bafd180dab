import { Framer } from '../../lib/rpc/framer.js';
import type { ByteStream, StreamListener } from '../../lib/transport/byte-stream.js';
import type {
  DescriptorPassage,
  DescriptorReceiver,
} from '../../lib/transport/descriptor-passage.js';
import { RecordingSink } from '../rpc/recording-sink.js';

/** A stream without a socket: keeps what is written, and says what the test has it say. */
export class ScriptedStream implements ByteStream {
  queuedBytes = 0;
  isLeft = false;
  passage: DescriptorPassage | null = null;
  separatesFrames = false;
  isPaused = false;
  isDestroyed = false;
  /** What every call of `write` was given, in copies. */
  readonly writes: Buffer[] = [];
  /** Told of each frame that is written whole. */
  onFrame: (frame: Buffer) => void = () => undefined;
  private listener: StreamListener | null = null;
  private readonly sink = new RecordingSink();
  private readonly framer = new Framer(this.sink);

  /** The frames that were written, whole ones. */
  get frames(): readonly Buffer[] {
    return this.sink.frames;
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    const written = Buffer.from(bytes.subarray(start, end));
    this.writes.push(written);
    const known = this.frames.length;
    this.framer.push(written);
    for (const frame of this.frames.slice(known)) this.onFrame(frame);
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  end(): void {
    this.destroy();
  }

  /** As of a socket: nobody is told anything any more. */
  destroy(): void {
    this.listener = null;
    this.isDestroyed = true;
  }

  /** The peer sends these bytes. */
  arrive(...frames: readonly Buffer[]): void {
    const bytes = Buffer.concat(frames);
    this.listener?.bytes(bytes, bytes.length);
  }

  /** The peer, or the system, ends the connection. */
  breakOff(error: Error | null = null): void {
    const { listener } = this;
    this.listener = null;
    listener?.closed(error);
  }
}

/** Keeps what is sent, and counts how often somebody asked to be given descriptors. */
export class ScriptedPassage implements DescriptorPassage {
  readonly sent: number[][] = [];
  readonly receivers: DescriptorReceiver[] = [];

  receive(receiver: DescriptorReceiver): void {
    this.receivers.push(receiver);
  }

  send(descriptors: number[]): void {
    this.sent.push(descriptors);
  }
}
