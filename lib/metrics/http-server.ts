import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Logger } from '../logging/logger.js';

/** What a path shows. */
export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /** Beside those that every answer has. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** The answer for each path there is. */
export type Pages = Readonly<Record<string, () => Answer | Promise<Answer>>>;

/** Connections at a time; for a further one the oldest is closed. */
const maxConnections = 64;

/**
 * Milliseconds from a connection's accepting to its end. Each serves one request, so that whoever
 * sends or reads too slowly, or nothing at all, keeps his place no longer than this.
 */
const connectionTime = 10_000;

/** Bytes of a request's line and headers. */
const maxHeaderSize = 8192;

const methods = ['GET', 'HEAD'];

/** Nobody may embed, keep or guess at what is shown. A page that needs more says so itself. */
const usualHeaders = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  Connection: 'close',
} as const;

/** Shows pages over HTTP to whoever is connected; what to listen on is up to others. */
export class HttpServer {
  private readonly connections = new Set<Socket>();
  /** Those whose one request has come. */
  private readonly served = new WeakSet<Socket>();
  private readonly server: Server;

  constructor(
    private readonly pages: Pages,
    private readonly log: Logger,
    private readonly patience = connectionTime,
  ) {
    this.server = createServer({ maxHeaderSize }, (request, response) => {
      void this.serve(request, response);
    });
  }

  /** Takes an accepted connection, a descriptor that is its own from now on. */
  connected(fd: number): void {
    const socket = new Socket({ fd, allowHalfOpen: true });
    const [oldest] = this.connections;
    if (oldest !== undefined && this.connections.size >= maxConnections) {
      this.log.debug(`${maxConnections} connections for metrics are open: the oldest is closed`);
      this.connections.delete(oldest);
      oldest.destroy();
    }
    this.connections.add(socket);
    const timer = setTimeout(() => socket.destroy(), this.patience);
    socket.on('error', () => undefined);
    socket.once('close', () => {
      clearTimeout(timer);
      this.connections.delete(socket);
    });
    this.server.emit('connection', socket);
  }

  /** Ends all connections. */
  close(): void {
    for (const socket of this.connections) socket.destroy();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Node's parser goes on with what came in the same packet, whatever `Connection` says.
    if (this.served.has(request.socket)) {
      request.socket.pause();
      return;
    }
    this.served.add(request.socket);
    const { status, contentType, body, headers } = await this.answerTo(request).catch(
      (error: unknown) => {
        const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
        this.log.error(`cannot answer a request for metrics: ${reason}`);
        return text(500, 'Internal error; the log says more.');
      },
    );
    response.writeHead(status, {
      ...usualHeaders,
      ...headers,
      'Content-Type': contentType,
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  private async answerTo({ method = '', url = '' }: IncomingMessage): Promise<Answer> {
    if (!methods.includes(method)) {
      return { ...text(405, 'Only GET and HEAD.'), headers: { Allow: methods.join(', ') } };
    }
    const [path = ''] = url.split('?');
    const page = Object.hasOwn(this.pages, path) ? this.pages[path] : undefined;
    return page === undefined ? text(404, 'There is no such page.') : await page();
  }
}

/** An answer of plain text; a line feed is added. */
export function text(status: number, body: string): Answer {
  return { status, contentType: 'text/plain; charset=utf-8', body: `${body}\n` };
}
