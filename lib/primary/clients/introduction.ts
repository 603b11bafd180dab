import type { ClientIntroduction } from '../../control/messages.js';
import { transportTraits } from '../../control/transports.js';
import type { Connection, HandleAddress, ListenerSettings } from '../listeners/listener.js';
import { localPeer } from './local-peer.js';

/** What is known of who has just connected. Throws when it has left already. */
export function introductionOf(
  id: number,
  { transport, auth, readOnly }: ListenerSettings,
  connection: Connection,
): ClientIntroduction {
  const { isLocal } = transportTraits[transport];
  return {
    kind: 'client',
    id,
    transport,
    auth,
    readOnly,
    local: isLocal ? localPeer(connection.fd) : null,
    remoteAddress: isLocal ? null : saslAddress((its) => connection.getpeername?.(its)),
    localAddress: isLocal ? null : saslAddress((its) => connection.getsockname?.(its)),
  };
}

function saslAddress(ask: (address: HandleAddress) => number | undefined): string {
  const its: HandleAddress = {};
  if (ask(its) !== 0) throw new Error('it has no address any more');
  return `${its.address};${its.port}`;
}
