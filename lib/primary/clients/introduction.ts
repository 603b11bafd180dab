import type { ClientIntroduction } from '../../control/messages.js';
import { transportTraits } from '../../control/transports.js';
import type { InternetAddress } from '../../native/socket-address.js';
import type { Connection } from '../listeners/connection.js';
import type { ListenerSettings } from '../listeners/listener.js';
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
    remoteAddress: isLocal ? null : saslAddress(connection.remoteAddress()),
    localAddress: isLocal ? null : saslAddress(connection.localAddress()),
  };
}

const saslAddress = ({ address, port }: InternetAddress): string => `${address};${port}`;
