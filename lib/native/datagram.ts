import { closeSync } from 'node:fs';
import { sendMessage } from './descriptor-passing.js';
import { NativeError, systemError } from './error.js';
import { libcFunction } from './library.js';

const afUnix = 1;
const sockDgram = 2;
const sockCloexec = 0o2000000;
// sun_path holds 108 bytes: a path with its NUL, or a NUL with an abstract name.
const longestName = 107;

const socket = libcFunction<(domain: number, type: number, protocol: number) => number>(
  'int socket(int domain, int type, int protocol)',
);

/** The struct sockaddr_un of a path, or of the abstract name that follows an '@' (unix(7)). */
export function unixAddress(pathOrName: string): Buffer {
  const abstract = pathOrName.startsWith('@');
  const bytes = Buffer.from(abstract ? pathOrName.slice(1) : pathOrName);
  if (bytes.length > longestName) {
    throw new NativeError(
      'ENAMETOOLONG',
      'socket',
      `${pathOrName} has more than the ${longestName} bytes the address of a UNIX socket can hold`,
    );
  }
  const address = Buffer.alloc(3 + bytes.length);
  address.writeUInt16LE(afUnix, 0);
  bytes.copy(address, abstract ? 3 : 2);
  return address;
}

/**
 * Sends datagrams to a UNIX socket such as /dev/log, /run/systemd/journal/socket or $NOTIFY_SOCKET,
 * never waiting. The address is looked up for each datagram, so a receiver that has been restarted
 * is found again.
 */
export class DatagramSocket {
  readonly #target: string;
  readonly #address: Buffer;
  #fd: number;

  /**
   * @param target a path, or '@' and an abstract name; nobody needs to listen there yet
   * @throws {NativeError} ENAMETOOLONG, EMFILE
   */
  constructor(target: string) {
    this.#target = target;
    this.#address = unixAddress(target);
    this.#fd = socket(afUnix, sockDgram | sockCloexec, 0);
    if (this.#fd === -1) throw systemError('socket', target);
  }

  /**
   * @returns 'would-block' when the receiver's queue is full: the datagram was not sent. An error
   *   is returned, not thrown: ENOENT or ECONNREFUSED when nobody listens, EMSGSIZE when `bytes` is
   *   larger than the socket's send buffer (about 200 KiB), EACCES, EBADF after close
   */
  send(bytes: Uint8Array): 'sent' | 'would-block' | NativeError {
    try {
      const sent = sendMessage(this.#fd, bytes, [], this.#address);
      return sent === 'would-block' ? sent : 'sent';
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      const message = `${error.message}, sending to ${this.#target}`;
      return new NativeError(error.code, error.call, message, { cause: error });
    }
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd === -1) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}
