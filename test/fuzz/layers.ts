import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { SaslStream } from '../peers/sasl-stream.js';
import { edges } from './grammar.js';
import type { Random } from './random.js';

/** What a client's frames go into, and what may lie between them and the socket. */
export interface Passage {
  readonly stream: Duplex;
  /**
   * Breaks the layer so that the connection has to end. Where there still is a way, `outcast` is
   * sent behind the break, both in the layer and in clear.
   */
  readonly spoil?: (outcast: Buffer) => void;
}

interface TlsLie {
  readonly random: Random;
  readonly tls: TLSSocket;
  readonly below: Socket;
}

/** A TLS record of its own making, as of TLS 1.2 and 1.3 alike. */
const tlsRecord = (type: number, length: number, content: Buffer): Buffer =>
  Buffer.concat([Buffer.from([type, 3, 3, length >> 8, length & 0xff]), content]);

const record = { changeCipherSpec: 20, alert: 21, handshake: 22, data: 23 } as const;

/** What ends a TLS connection, in good order or not. */
const tlsLies: readonly ((lie: TlsLie) => void)[] = [
  // The end of the connection without one of the layer; in the middle of a record, too.
  ({ below }) => below.end(),
  ({ random, below }) => below.end(tlsRecord(record.data, 200, random.bytes(random.below(200)))),
  // The layer's own end.
  ({ tls }) => tls.end(),
  // No record at all.
  ({ random, below }) => below.write(random.bytes(5 + random.below(2000))),
  // Records that the layer's keys have not made.
  ({ random, below }) => {
    const content = random.bytes(random.below(300));
    below.write(tlsRecord(random.pick(Object.values(record)), content.length, content));
  },
  // A close_notify, a change of ciphers and a hello from somebody on the way.
  ({ below }) => below.write(tlsRecord(record.alert, 2, Buffer.from([1, 0]))),
  ({ below }) => below.write(tlsRecord(record.changeCipherSpec, 1, Buffer.from([1]))),
  ({ below }) => below.write(tlsRecord(record.handshake, 4, Buffer.alloc(4))),
  // Lengths that no record has.
  ({ random, below }) =>
    below.write(tlsRecord(record.data, random.pick([0, 0x4141, 0xffff]), Buffer.alloc(0))),
];

/** A TLS connection whose client can reach below the layer. */
export function tlsPassage(random: Random, tls: TLSSocket, below: Socket): Passage {
  return {
    stream: tls,
    spoil: (outcast) => {
      random.pick(tlsLies)({ random, tls, below });
      if (!tls.writable || !below.writable) return;
      tls.write(outcast);
      below.write(outcast);
    },
  };
}

interface SaslLie {
  readonly random: Random;
  readonly outcast: Buffer;
  /** Packets for `outcast`, as the layer wants them. */
  readonly packets: () => Buffer;
}

/** The most bytes of a packet that the proxy lets a client send. */
const largestPacket = 65_536;

const tooLarge = edges.filter((edge) => edge > largestPacket);

/** What breaks a SASL layer. */
const saslLies: readonly ((lie: SaslLie) => Buffer)[] = [
  // Another byte than the keys have made.
  ({ random, packets }) => {
    const forged = packets();
    const at = 4 + random.below(forged.length - 4);
    forged[at] = forged[at]! ^ (1 << random.below(8));
    return forged;
  },
  // A length that no packet has.
  ({ random, packets }) => {
    const lying = packets();
    lying.writeUInt32BE(random.pick([0, ...tooLarge]), 0);
    return lying;
  },
  // Shorter or longer than it is: what comes behind has no packet's beginning any more.
  ({ random, packets }) => {
    const lying = packets();
    const length = lying.readUInt32BE(0);
    lying.writeUInt32BE(random.pick([1, length - 1, length + 1, 1 + random.below(length - 1)]), 0);
    return Buffer.concat([lying, packets()]);
  },
  // No packets at all.
  ({ outcast }) => outcast,
  // Out of their order.
  ({ packets }) => Buffer.concat([packets(), packets()].reverse()),
];

/** A SASL layer on TCP whose client can reach below it. */
export function saslPassage(random: Random, stream: SaslStream): Passage {
  const { below } = stream;
  stream.cut = (packets) => random.pieces(packets, 3);
  return {
    stream,
    spoil: (outcast) => {
      const packets = (): Buffer => stream.encode(outcast);
      if (random.chance(0.15)) {
        // The end, in the middle of a packet.
        const whole = packets();
        below.end(whole.subarray(0, random.below(whole.length)));
        return;
      }
      const lie = random.pick(saslLies)({ random, outcast, packets });
      for (const piece of random.pieces(lie, 4)) below.write(piece);
      stream.write(outcast);
      below.write(outcast);
    },
  };
}
