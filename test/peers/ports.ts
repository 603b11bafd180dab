import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';

/** Numbers of TCP ports that nobody listens on, all different; they stay free unless somebody takes them meanwhile. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
