import { closeSync } from 'node:fs';
import {
  boundAddress,
  peerAddress,
  type BoundAddress,
  type InternetAddress,
} from '../../native/socket-address.js';
import type { SocketHandle } from '../../transport/node-socket.js';

/** An accepted connection that nothing has been read from. */
export interface Connection extends SocketHandle {
  /** Of a TCP connection; throws when the peer is gone. */
  remoteAddress(): InternetAddress;
  /** Where it was accepted; of a TCP connection. */
  localAddress(): InternetAddress;
}

/** One that a listener of this process has accepted. */
export class AcceptedConnection implements Connection {
  constructor(private descriptor: number) {}

  get fd(): number {
    return this.descriptor;
  }

  /** Does nothing the second time: the number may be another's by then. */
  close(): void {
    if (this.descriptor >= 0) closeSync(this.descriptor);
    this.descriptor = -1;
  }

  remoteAddress(): InternetAddress {
    return ofTcp(peerAddress(this.descriptor));
  }

  localAddress(): InternetAddress {
    return ofTcp(boundAddress(this.descriptor));
  }
}

function ofTcp(address: BoundAddress | null): InternetAddress {
  if (address === null || address.family === 'unix') throw new Error('it is no TCP connection');
  return address;
}
