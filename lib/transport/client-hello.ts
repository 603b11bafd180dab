import type { Socket } from 'node:net';

/**
 * The handshake failed; the message is the TLS library's, the socket's or says what the client did.
 */
export class HandshakeError extends Error {
  readonly code = 'HANDSHAKE';
}

/** Of a TLS record: one byte of type, two of version, two of length. */
const headerLength = 5;
const handshakeType = 22;
const majorVersion = 3;

/** Longest payload of a record in the clear, in bytes (RFC 8446, 5.1). */
const maxRecordLength = 16_384;

/** Longest first record of a client in bytes. */
export const longestRecord = headerLength + maxRecordLength;

const nothing = Buffer.alloc(0);

/**
 * Waits until the first record of a TLS client has arrived whole. A real client sends it as soon as
 * it is connected. Its bytes are put back, for a TLS server that is given the socket at once.
 * Rejects with HandshakeError, or the signal's reason.
 */
export function clientHello(socket: Socket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    let bytes: Buffer = nothing;
    const settle = (error: Error | null): void => {
      socket.off('readable', take);
      socket.off('close', left);
      signal.removeEventListener('abort', aborted);
      if (error !== null) {
        reject(error);
        return;
      }
      socket.unshift(bytes);
      resolve();
    };
    const left = (): void => settle(new HandshakeError('the client left in the middle of it'));
    const aborted = (): void => settle(signal.reason as Error);
    const take = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      bytes = Buffer.concat([bytes, chunk]);
      if (!isHandshake(bytes)) settle(new HandshakeError('the client does not speak TLS'));
      else if (isWholeRecord(bytes)) settle(null);
    };
    socket.on('readable', take);
    socket.on('close', left);
    signal.addEventListener('abort', aborted);
  });
}

/** Whether the bytes begin with a whole TLS record, or with none at all. */
export function isWholeRecord(bytes: Buffer): boolean {
  if (!isHandshake(bytes)) return true;
  return bytes.length >= headerLength && bytes.length >= headerLength + bytes.readUInt16BE(3);
}

/** As far as can be seen yet. */
function isHandshake(bytes: Buffer): boolean {
  if (bytes[0] !== handshakeType || (bytes[1] ?? majorVersion) !== majorVersion) return false;
  return bytes.length < headerLength || bytes.readUInt16BE(3) <= maxRecordLength;
}
