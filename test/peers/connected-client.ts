import { startPython, type ClientOptions, type ClientProcess } from './clients.js';
import { until } from './waiting.js';

/**
 * Python that opens sys.argv[1] as `connection`; credentials come from the file that
 * LIBVIRT_AUTH_FILE names, for which libvirt wants to be told that there might be some.
 */
export const openConnection = `
import libvirt, sys
asked_for = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
connection = libvirt.openAuth(sys.argv[1], [asked_for, lambda credentials, opaque: -1, None])
`;

const script = `${openConnection}
connection.getHostname()
print("connected")
sys.stdin.read()
`;

/**
 * Starts a libvirt client that stays connected until it is killed. Rejects with its words when it
 * cannot connect.
 */
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
