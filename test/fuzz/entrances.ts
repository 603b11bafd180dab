import type { ClientOptions } from '../native/sasl-client.js';
import { saslEnvironment } from '../native/sasl-environment.js';
import {
  Authority,
  certificatesLacking,
  purpose,
  type CertificateFiles,
} from '../peers/certificates.js';
import { FrameSocket } from '../peers/frame-socket.js';
import { freePorts } from '../peers/ports.js';
import type { Proxy } from '../peers/proxy.js';
import { clientHello, enterTls, tcpSocket, type TlsClientOptions } from '../peers/remote-client.js';
import { logIn } from '../peers/sasl-stream.js';
import type { FuzzEntrance } from './fuzzed-client.js';
import { FuzzedLogin } from './fuzzed-login.js';
import { saslPassage, tlsPassage, type Passage } from './layers.js';
import type { Random } from './random.js';

/** What a proxy must be told so that there are these ways into it. */
export interface RemoteEntrances {
  readonly conf: Record<string, string | number>;
  readonly env: Record<string, string>;
  readonly entrances: FuzzEntrance[];
}

/** The ways in over UNIX sockets; in session mode there is no read-only one. */
export function localEntrances(proxy: Proxy, isRoot: boolean): FuzzEntrance[] {
  const local = (name: string, path: string): FuzzEntrance => ({
    name,
    strangers: false,
    connect: async () => ({ stream: await FrameSocket.connectSocket(path) }),
  });
  const writing = local('unix', proxy.socket);
  return isRoot ? [writing, local('unix-ro', proxy.readOnlySocket)] : [writing];
}

/** TCP with SASL and TLS, as far as this machine has what they need. */
export async function remoteEntrances(directory: string): Promise<RemoteEntrances> {
  const account = saslEnvironment();
  const files = certificatesLacking() === undefined ? makeFiles(directory) : null;
  const hello = await clientHello();
  // Last, so that nobody takes them meanwhile.
  const [tcp, tls] = (await freePorts(2)) as [number, number];
  return {
    conf: {
      listen_addr: '127.0.0.1',
      ...(account && { listen_tcp: 1, tcp_port: String(tcp) }),
      ...(files && { listen_tls: 1, tls_port: String(tls), ...files.conf }),
    },
    env: account ? { SASL_CONF_PATH: process.env['SASL_CONF_PATH']! } : {},
    entrances: [
      ...(account ? saslEntrances(tcp, account) : []),
      ...(files ? tlsEntrances({ port: tls, ca: files.conf.ca_file, ...files }, hello) : []),
    ],
  };
}

/** TCP asks for a login: clients do not think of it, fail at it, or are let into the layer. */
function saslEntrances(port: number, account: ClientOptions): FuzzEntrance[] {
  const connect = async (): Promise<Passage> => ({ stream: await tcpSocket(port) });
  return [
    { name: 'tcp', strangers: true, connect },
    {
      name: 'login',
      strangers: true,
      connect,
      overture: (random, client, sent) => FuzzedLogin.play(random, client, sent, account),
    },
    {
      name: 'sasl',
      strangers: false,
      connect: async (random) => {
        const stream = await logIn(await tcpSocket(port), account);
        return saslPassage(random, stream!);
      },
    },
  ];
}

interface TlsFiles {
  readonly conf: {
    readonly ca_file: string;
    readonly cert_file: string;
    readonly key_file: string;
  };
  /** A client's. */
  readonly certificate: CertificateFiles;
}

function makeFiles(directory: string): TlsFiles {
  const authority = Authority.create(directory, 'authority');
  const { cert, key } = authority.issue('server', { purpose: purpose.server });
  return {
    conf: { ca_file: authority.cert, cert_file: cert, key_file: key },
    certificate: authority.issue('client'),
  };
}

/** Clients that do not come to the end of the handshake, and such that do. */
function tlsEntrances(options: TlsClientOptions, hello: Buffer): FuzzEntrance[] {
  const prelude = (random: Random): Buffer => {
    const bytes = Buffer.from(hello.subarray(0, 1 + random.below(hello.length)));
    if (random.chance(0.7)) bytes[random.below(bytes.length)] = random.below(256);
    return bytes;
  };
  return [
    {
      name: 'tls hello',
      strangers: true,
      connect: async () => ({ stream: await tcpSocket(options.port) }),
      prelude,
    },
    {
      name: 'tls',
      strangers: false,
      connect: async (random) => {
        const below = await tcpSocket(options.port);
        // What is written below the layer may find nobody there any more.
        below.on('error', () => undefined);
        return tlsPassage(random, await enterTls({ ...options, below }), below);
      },
    },
  ];
}
