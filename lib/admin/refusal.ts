import { callOf, headerLength } from '../rpc/frame.js';
import { encodeErrorReply, type RpcError } from '../rpc/rpc-error.js';
import type { ByteStream } from '../transport/byte-stream.js';

/** Milliseconds that a refused client has to call, and to leave when it has been told. */
const patience = 1000;

/** Clients that are told why at a time; further ones lose their connection without a word. */
const mostAtATime = 20;

let current = 0;

/**
 * Answers whatever a client asks with an error until it leaves. virt-admin, which cannot bear to
 * lose its connection before it has sent its first and its last call, would die of SIGPIPE and tell
 * nobody why.
 */
export function refuse(stream: ByteStream, error: RpcError): void {
  if (current === mostAtATime) {
    stream.destroy();
    return;
  }
  current++;
  let ended = false;
  const end = (): void => {
    if (ended) return;
    ended = true;
    current--;
    clearTimeout(timer);
    stream.destroy();
  };
  const timer = setTimeout(end, patience);
  stream.listen({
    bytes: (buffer, length) => {
      if (length >= headerLength) stream.write(encodeErrorReply(callOf(buffer, 0), error));
    },
    drained: () => undefined,
    closed: end,
  });
}
