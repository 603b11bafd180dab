import type { ClientIntroduction, LocalPeer } from '../../../lib/control/messages.js';
import type { Client } from '../../../lib/primary/clients/client-registry.js';

/** A process of this host, as the kernel tells of it. */
export const peer: LocalPeer = {
  pid: 4711,
  uid: 1000,
  gid: 1000,
  groups: [],
  startTime: '42',
  selinuxContext: null,
};

/** A client of the read-write UNIX socket that no worker has, but for what is said of it. */
export function clientOf(
  introduction: Partial<ClientIntroduction> & Pick<ClientIntroduction, 'id'>,
  state: Partial<Omit<Client, 'introduction'>> = {},
): Client {
  return {
    introduction: {
      kind: 'client',
      transport: 'unix',
      readOnly: false,
      auth: 'none',
      local: peer,
      remoteAddress: null,
      localAddress: null,
      ...introduction,
    },
    connectedAt: 0,
    origin: 'a',
    hasSpoken: false,
    nextCheck: 0,
    connection: null,
    worker: null,
    silentSince: null,
    stage: 'silent',
    isBeingEvicted: false,
    loggedIn: false,
    identity: null,
    onLeft: null,
    ...state,
  };
}
