import { setTimeout as delay } from 'node:timers/promises';
import { receive } from '../../lib/native/descriptor-passing.js';
import {
  headerLength,
  messageType,
  procedureOf,
  programOf,
  serialOf,
  statusOf,
  typeOf,
  versionOf,
} from '../../lib/rpc/frame.js';
import { handleOf } from '../../lib/transport/node-socket.js';
import type { FrameSocket, ReceivedFrame } from './frame-socket.js';

const pollIntervalMs = 2;
const usualPatience = 10_000;

/** A frame with the descriptors that followed it, which belong to the test. */
export interface FrameWithDescriptors extends ReceivedFrame {
  readonly descriptors: number[];
}

/**
 * Reads a connection as libvirt does: no byte more than the next frame has, then each of its
 * descriptors.
 */
export class ExactReader {
  /** Bytes read so far. */
  bytesRead = 0;

  constructor(private readonly connection: FrameSocket) {
    connection.pause();
    // A paused socket of node's still reads until its buffer is full.
    (handleOf(connection.socket) as unknown as { readStop(): void }).readStop();
  }

  /** The next frame. Rejects when the connection ends, or nothing comes for 10 seconds. */
  async frame(): Promise<FrameWithDescriptors> {
    const length = await this.bytes(4);
    const rest = await this.bytes(length.readUInt32BE(0) - 4);
    const bytes = Buffer.concat([length, rest]);
    const descriptors: number[] = [];
    const type = typeOf(bytes, 0);
    const carries = type === messageType.callWithFds || type === messageType.replyWithFds;
    const count = carries ? bytes.readUInt32BE(headerLength) : 0;
    while (descriptors.length < count) await this.bytes(1, descriptors);
    return {
      program: programOf(bytes, 0),
      version: versionOf(bytes, 0),
      procedure: procedureOf(bytes, 0),
      type,
      serial: serialOf(bytes, 0),
      status: statusOf(bytes, 0),
      payload: bytes.subarray(headerLength),
      descriptors,
    };
  }

  private async bytes(length: number, descriptors: number[] = []): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    const before = descriptors.length;
    const { fd } = handleOf(this.connection.socket);
    const deadline = performance.now() + usualPatience;
    for (let done = 0; done < length;) {
      const received = receive(fd, bytes, done, length - done);
      if (received !== 'would-block') {
        if (received.bytes === 0) throw new Error('The connection has ended.');
        done += received.bytes;
        this.bytesRead += received.bytes;
        descriptors.push(...received.descriptors);
      } else if (performance.now() > deadline) {
        throw new Error(`Only ${done} of ${length} bytes came within ${usualPatience} ms.`);
      } else {
        await delay(pollIntervalMs);
      }
    }
    const expected = length === 1 ? 1 : 0;
    if (descriptors.length - before !== expected) {
      throw new Error(`${descriptors.length - before} descriptors came with ${length} bytes.`);
    }
    return bytes;
  }
}
