/** What tells one transport from another. */
export interface TransportTraits {
  /** Its clients are processes of this host, and the kernel knows whose. Others have addresses. */
  readonly isLocal: boolean;
  /** Descriptors can travel beside the bytes. */
  readonly passesDescriptors: boolean;
  /** What a client sends first. */
  readonly firstMessage: 'frame' | 'tls-record';
  /** A client has to prove something even where no login is asked for. */
  readonly beginsAnonymous: boolean;
  /** Nothing protects its bytes but a SASL layer, where users log in with SASL. */
  readonly needsSaslLayer: boolean;
  /**
   * What it may mean that a client leaves before it has sent a byte of a frame; null where that is
   * nothing to warn of.
   */
  readonly leftUnheard: string | null;
}

/** What a client's connection runs over, one row each. */
export const transportTraits = {
  unix: {
    isLocal: true,
    passesDescriptors: true,
    firstMessage: 'frame',
    beginsAnonymous: false,
    needsSaslLayer: false,
    leftUnheard: null,
  },
  tcp: {
    isLocal: false,
    passesDescriptors: false,
    firstMessage: 'frame',
    beginsAnonymous: false,
    needsSaslLayer: true,
    leftUnheard: null,
  },
  tls: {
    isLocal: false,
    passesDescriptors: false,
    firstMessage: 'tls-record',
    beginsAnonymous: true,
    needsSaslLayer: false,
    leftUnheard:
      'left right after the TLS handshake: it may not trust our certificate, or have come for another host name',
  },
} as const satisfies Readonly<Record<string, TransportTraits>>;

export type Transport = keyof typeof transportTraits;
export const transports = Object.keys(transportTraits) as readonly Transport[];
