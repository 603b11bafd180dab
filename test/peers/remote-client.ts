import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { CertificateFiles } from './certificates.js';
import { RawClient } from './raw-client.js';

/** A TCP connection on the loopback interface. Rejects with the system's error. */
export async function tcpSocket(port: number): Promise<Socket> {
  const socket = createConnection({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  return socket;
}

/** A raw client over TCP on the loopback interface. Rejects with the system's error. */
export async function connectTcp(port: number): Promise<RawClient> {
  return new RawClient(await tcpSocket(port));
}

export interface TlsClientOptions {
  readonly port: number;
  /** Path of the authority's certificate. */
  readonly ca: string;
  /** The client's own; none when left out. */
  readonly certificate?: CertificateFiles;
  /**
   * The connection to that port, for whoever wants to reach below TLS; one is made when left out.
   */
  readonly below?: Socket;
}

/**
 * Begins a handshake on the loopback interface. What is written at once goes out together with its
 * last message.
 */
export function beginTls({ port, ca, certificate, below }: TlsClientOptions): TLSSocket {
  const own = certificate && {
    cert: readFileSync(certificate.cert),
    key: readFileSync(certificate.key),
  };
  const place = { host: '127.0.0.1', port, ...(below && { socket: below }) };
  const socket = connect({ ...place, ca: readFileSync(ca), ...own });
  // Being turned away is no error of the test.
  socket.on('error', () => undefined);
  return socket;
}

/**
 * A TLS connection that has been told to go ahead, and flows once resumed. Rejects when it is
 * turned away.
 */
export async function enterTls(options: TlsClientOptions): Promise<TLSSocket> {
  const socket = beginTls(options);
  const closed = once(socket, 'close').then(() => {
    throw new Error('The server closed the connection before it said to go ahead.');
  });
  await Promise.race([once(socket, 'readable'), closed]);
  closed.catch(() => undefined);
  const [byte] = (socket.read(1) as Buffer | null) ?? [];
  if (byte !== 1) throw new Error(`The server's first byte is ${byte ?? 'missing'}, not 1.`);
  return socket;
}

/** A raw client over TLS that has been told to go ahead. Rejects when it is turned away. */
export async function connectTls(options: TlsClientOptions): Promise<RawClient> {
  const client = new RawClient(await enterTls(options));
  client.resume();
  return client;
}

/** What a TLS client sends first. */
export async function clientHello(): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  client.on('error', () => undefined);
  const [socket] = (await once(server, 'connection')) as [Socket];
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}
