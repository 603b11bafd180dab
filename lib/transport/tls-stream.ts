import type { Socket } from 'node:net';
import { createServer, type Server, type TlsOptions, type TLSSocket } from 'node:tls';
import type { ByteStream, StreamListener } from './byte-stream.js';
import { clientHello, HandshakeError } from './client-hello.js';
import { endInTime, isLeft } from './node-socket.js';

interface Handshake {
  readonly done: (socket: TLSSocket) => void;
  readonly failed: (error: Error) => void;
}

/** Who is told how a handshake begins. */
export interface HandshakeListener {
  /** The client's first message is there, whole. */
  begun(): void;
  /** It has been answered. */
  answered(): void;
}

/**
 * Makes TLS sockets of connections that another process accepted. Node tells what it found wrong
 * with a client's certificate only to a TLS server, so there is one, which listens nowhere and is
 * given its connections.
 */
export class TlsAcceptor {
  private readonly server: Server;
  private readonly underWay = new Map<string, Handshake>();

  /** `options` as of `tls.createServer`. */
  constructor(options: TlsOptions) {
    this.server = createServer(options);
    this.server.on('secureConnection', (socket) => {
      const handshake = this.underWay.get(addressOf(socket));
      if (handshake === undefined) socket.destroy();
      else handshake.done(socket);
    });
    this.server.on('tlsClientError', (error, socket) => {
      this.underWay.get(addressOf(socket))?.failed(error);
    });
  }

  /**
   * `raw` has not been read from. Resolves after the handshake. Rejects with HandshakeError, or the
   * signal's reason; `raw` is closed then.
   */
  async accept(raw: Socket, signal: AbortSignal, listener: HandshakeListener): Promise<TLSSocket> {
    // Its closing, which follows, is what counts.
    raw.on('error', () => undefined);
    const address = addressOf(raw);
    let answered: NodeJS.Immediate | undefined;
    try {
      await clientHello(raw, signal);
      listener.begun();
      return await new Promise<TLSSocket>((resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        raw.once('close', () => reject(new HandshakeError('the client left in the middle of it')));
        this.underWay.set(address, {
          done: resolve,
          failed: (error) => reject(new HandshakeError(reasonOf(error), { cause: error })),
        });
        this.server.emit('connection', raw);
        // Node begins in the next tick, and OpenSSL's answer is with the socket at the end of it.
        answered = setImmediate(() => listener.answered());
      });
    } catch (error) {
      raw.destroy();
      throw error;
    } finally {
      clearImmediate(answered);
      this.underWay.delete(address);
    }
  }
}

/**
 * OpenSSL's errors have their words in `reason`; their message is a line of its queue, with places
 * in its source.
 */
function reasonOf(error: Error): string {
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message;
}

const addressOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress ?? ''} ${remotePort ?? 0} ${localAddress ?? ''} ${localPort ?? 0}`;

/**
 * A TLS connection after its handshake as ByteStream. What one `write` is given has its TLS records
 * to itself.
 */
export class TlsStream implements ByteStream {
  readonly passage = null;
  readonly separatesFrames = true;
  private listener: StreamListener | null = null;

  constructor(private readonly socket: TLSSocket) {
    // Writes that have to wait would be joined by it.
    Object.assign(socket, { _writev: undefined });
    const closed = (error: Error | null): void => {
      const { listener } = this;
      this.listener = null;
      listener?.closed(error);
    };
    socket.on('drain', () => this.listener?.drained());
    socket.on('end', () => closed(null));
    socket.on('error', closed);
    socket.on('close', () => closed(null));
  }

  get queuedBytes(): number {
    return this.socket.writableLength;
  }

  get isLeft(): boolean {
    return isLeft(this.socket);
  }

  listen(listener: StreamListener): void {
    this.listener = listener;
    this.socket.on('data', (chunk: Buffer) => this.listener?.bytes(chunk, chunk.length));
  }

  write(bytes: Buffer, start = 0, end = bytes.length): void {
    if (this.socket.writable) this.socket.write(Buffer.from(bytes.subarray(start, end)));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  end(): void {
    this.listener = null;
    endInTime(this.socket);
  }

  destroy(): void {
    this.listener = null;
    this.socket.destroy();
  }
}
