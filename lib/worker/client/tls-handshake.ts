import type { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { matchesAny } from '../../auth/allow-list.js';
import { peerCertificate, verifyClientCertificate } from '../../auth/client-certificate.js';
import { cipherKeyBits } from '../../auth/tls-algorithms.js';
import { loadTlsCredentials, type TlsCredentials } from '../../auth/tls-credentials.js';
import { credentialsOptions } from '../../auth/tls-settings.js';
import type { Configuration } from '../../config/configuration.js';
import type { TlsContents } from '../../config/paths.js';
import type { ClientIntroduction } from '../../control/messages.js';
import { errorText } from '../../error-text.js';
import { TlsAcceptor, TlsStream } from '../../transport/tls-stream.js';
import type { Arrival } from './session-context.js';
import { TlsRefusal } from './tls-refusal.js';
import type { Turn } from './turn.js';

/**
 * What the server says inside the TLS session once it has accepted the client: libvirt's go-ahead.
 */
const goAhead = Buffer.from([1]);

/** The way in for TLS clients: the handshake, their certificate, the go-ahead. */
export class TlsReception {
  private readonly acceptor: TlsAcceptor;
  private readonly credentials: TlsCredentials;
  private readonly allows: ((dn: string) => boolean) | null;

  /** Throws TlsCredentialsError or TlsPriorityError. */
  constructor({ conf }: Configuration, files: TlsContents) {
    this.credentials = loadTlsCredentials(files, credentialsOptions(conf));
    this.acceptor = new TlsAcceptor(this.credentials.serverOptions);
    const names = conf.tls_allowed_dn_list;
    this.allows = names === null ? null : (dn) => matchesAny(names, dn);
  }

  /**
   * `turn` follows how far it has come. Throws TlsRefusal, or the signal's reason; the connection
   * is closed then.
   */
  async receive(
    introduction: ClientIntroduction,
    raw: Socket,
    signal: AbortSignal,
    turn: Turn,
  ): Promise<Arrival> {
    const arrivedAt = performance.now();
    const socket = await this.shakeHands(raw, signal, turn);
    turn.ours();
    try {
      const verdict = verifyClientCertificate(
        peerCertificate(socket),
        this.credentials,
        this.allows,
      );
      if (!verdict.ok) throw new TlsRefusal(verdict.reason);
      // What came right behind the handshake is in the socket by then.
      await nextTurn();
      signal.throwIfAborted();
      if (socket.readableLength > 0) {
        throw new TlsRefusal('It sent data before it was told to go ahead.');
      }
      socket.write(goAhead);
      turn.theirs('login');
      return {
        introduction,
        stream: new TlsStream(socket),
        arrivedAt,
        x509Name: verdict.dn,
        externalSsf: cipherKeyBits(socket.getCipher().name),
      };
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  private async shakeHands(raw: Socket, signal: AbortSignal, turn: Turn): Promise<TLSSocket> {
    try {
      return await this.acceptor.accept(raw, signal, {
        begun: () => turn.ours(),
        answered: () => turn.theirs('handshake'),
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason as Error;
      const reason = errorText(error);
      throw new TlsRefusal(`The TLS handshake failed: ${reason}`, 'tls', { cause: error });
    }
  }
}
