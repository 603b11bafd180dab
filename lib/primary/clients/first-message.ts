import { transportTraits, type Transport } from '../../control/transports.js';
import { peek } from '../../native/peek.js';
import { isWholeRecord, longestRecord } from '../../transport/client-hello.js';

/**
 * How much of a client's first message waits in its socket: all of it, not yet all, or the client
 * has left.
 */
export type FirstMessage = 'whole' | 'partial' | 'gone';

const buffer = Buffer.alloc(longestRecord);

const isWhole = { frame: isWholeFrame, 'tls-record': isWholeRecord } as const;

/**
 * Looks without reading. What is no message counts as whole: whoever reads it will turn the client
 * away.
 */
export function firstMessage(fd: number, transport: Transport): FirstMessage {
  const length = peek(fd, buffer);
  if (length === null) return 'partial';
  if (length === 0) return 'gone';
  const bytes = buffer.subarray(0, length);
  return isWhole[transportTraits[transport].firstMessage](bytes) ? 'whole' : 'partial';
}

/** The length of a frame is its first word (PROTOCOL.md, "Frames"). */
function isWholeFrame(bytes: Buffer): boolean {
  return (
    bytes.length === buffer.length || (bytes.length >= 4 && bytes.length >= bytes.readUInt32BE(0))
  );
}
