import { callOf, headerLength } from '../rpc/frame.js';
import { encodeErrorReply, type RpcError } from '../rpc/rpc-error.js';
import type { ByteStream } from '../transport/byte-stream.js';

/** Milliseconds in which a client may send the call that is refused. */
const patience = 1000;

/** Clients that are told why at a time; further ones lose their connection without a word. */
const mostAtATime = 20;

let current = 0;

/**
 * Answers a client's first call with an error and ends its connection. A client that lost it before it could call would
 * be none the wiser; virt-admin dies of the signal then.
 */
export function refuse(stream: ByteStream, error: RpcError): void {
  if (current === mostAtATime) {
    stream.destroy();
    return;
  }
  current++;
  let ended = false;
  const end = (close: () => void): void => {
    if (ended) return;
    ended = true;
    current--;
    clearTimeout(timer);
    close();
  };
  const timer = setTimeout(() => end(() => stream.destroy()), patience);
  stream.listen({
    bytes: (chunk) => {
      if (chunk.length >= headerLength) stream.write(encodeErrorReply(callOf(chunk, 0), error));
      end(() => stream.end());
    },
    drained: () => undefined,
    closed: () => end(() => stream.destroy()),
  });
}
