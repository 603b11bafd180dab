import { openReadOnly } from '../../rpc/session-messages.js';
import { nothingToProbe } from '../relay/answers.js';
import { parseConnectionUri, type ConnectionTarget } from '../daemon/connection-uri.js';
import type { Relay } from '../relay/relay.js';
import type { SessionContext } from './session-context.js';

/** Where the daemons of this host are. */
type Directory = Pick<SessionContext, 'daemons' | 'probe'>;

/**
 * Finds the daemon that a client's URI means, and opens it. Rejects with RpcError or DaemonRefusal.
 */
export async function openByUri(
  relay: Relay,
  name: string,
  flags: number,
  directory: Directory,
): Promise<void> {
  const readOnly = (flags & openReadOnly) !== 0;
  const target = name === '' ? await probed(readOnly, directory) : parseConnectionUri(name);
  const endpoint = directory.daemons.endpoint(target.driver, readOnly);
  await relay.open(endpoint, { name: target.uri, flags });
}

async function probed(readOnly: boolean, { probe, daemons }: Directory): Promise<ConnectionTarget> {
  const target = await probe(readOnly);
  if (target === null) throw nothingToProbe(daemons.probed);
  return target;
}
