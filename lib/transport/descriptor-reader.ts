import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { receive } from '../native/descriptor-passing.js';
import { NativeError } from '../native/error.js';
import { DescriptorError } from '../rpc/descriptor-matcher.js';
import type { DescriptorReceiver } from './descriptor-passage.js';
import { readBuffer } from './read-buffer.js';

/** What node's handle of a socket can do besides; its types do not name it. */
export interface ReadableHandle {
  readonly fd: number;
  /** Called when the socket is readable, after an attempt to read into the user's buffer. */
  onread: () => void;
  useUserBuffer(buffer: Buffer): void;
  readStop(): void;
}

/**
 * Reads from a UNIX socket with recvmsg(2) from now on. libuv does not read where there is no room:
 * given a buffer of no bytes it only tells that the socket is readable, again and again until
 * somebody else has read from it. Pausing and resuming go on as before.
 */
export function readDescriptors(
  socket: Socket,
  handle: ReadableHandle,
  receiver: DescriptorReceiver,
): void {
  handle.useUserBuffer(Buffer.alloc(0));
  handle.onread = () => {
    let received;
    try {
      received = receive(handle.fd, readBuffer, 0, readBuffer.length);
    } catch (error) {
      socket.destroy(error instanceof NativeError ? readError(error) : (error as Error));
      return;
    }
    if (received === 'would-block') return;
    if (received.bytes === 0) {
      // As node itself tells of the end. The socket stays readable.
      handle.readStop();
      socket.push(null);
      socket.read(0);
      return;
    }
    const bytes = readBuffer.subarray(0, received.bytes);
    if (!received.isTruncated) receiver.received(bytes, received.descriptors);
    else if (receiver.lost !== undefined) receiver.lost(bytes);
    else socket.destroy(noRoom());
  };
}

const noRoom = (): DescriptorError =>
  new DescriptorError(
    'sent descriptors for which there is no room; raise the limit of open files (LimitNOFILE=, ulimit -n)',
  );

/** The error as node's own reading would have it. */
function readError({ code }: NativeError): Error {
  const errno = (constants.errno as Readonly<Record<string, number>>)[code] ?? 0;
  return Object.assign(new Error(`read ${code}`), { code, errno: -errno, syscall: 'read' });
}
