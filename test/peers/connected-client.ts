import { startPython, type ClientOptions, type ClientProcess } from './clients.js';
import { until } from './waiting.js';

const script = `
import libvirt, sys
connection = libvirt.open(sys.argv[1])
connection.getHostname()
print("connected")
sys.stdin.read()
`;

/** Starts a libvirt client that stays connected until it is killed. Rejects with its words when it cannot connect. */
export async function connectedClient(
  uri: string,
  options?: ClientOptions,
): Promise<ClientProcess> {
  const client = startPython(script, [uri], options);
  let ended = false;
  void client.finished.then(() => (ended = true));
  const isConnected = (): boolean => {
    if (ended) throw new Error(`A client could not connect to ${uri}: ${client.stderr}`);
    return client.stdout.includes('connected');
  };
  try {
    await until(isConnected, { what: `a client to connect to ${uri}` });
  } catch (error) {
    await client.kill();
    throw error;
  }
  return client;
}
