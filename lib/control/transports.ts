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
}

/** What a client's connection runs over, one row each. */
export const transportTraits = {
  unix: { isLocal: true, passesDescriptors: true, firstMessage: 'frame', beginsAnonymous: false },
  tcp: { isLocal: false, passesDescriptors: false, firstMessage: 'frame', beginsAnonymous: false },
  tls: {
    isLocal: false,
    passesDescriptors: false,
    firstMessage: 'tls-record',
    beginsAnonymous: true,
  },
} as const satisfies Readonly<Record<string, TransportTraits>>;

export type Transport = keyof typeof transportTraits;
export const transports = Object.keys(transportTraits) as readonly Transport[];
