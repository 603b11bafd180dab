import { NativeError } from '../native/error.js';
import { SaslServer, type SaslStep } from '../native/sasl.js';
import { AuthenticationError, type AuthenticationFailure } from './authentication-error.js';

/** The most bytes one message of the exchange may carry (PROTOCOL.md, "Session procedures"). */
export const maximumSaslData = 65536;

/** tcp_min_ssf where the configuration does not set it: single DES, what old Kerberos has. */
const defaultMinSsf = 56;

/**
 * Bytes that a client must accept in one packet: each costs a call of libsasl2, however small it
 * is. libvirt's accept 65 536.
 */
const minimumPacket = 1024;

// "No upper bound" and the packet size, as the C daemon passes them to libsasl2.
const maximumSsf = 100_000;
const maximumPacket = 65536;

export interface SaslExchangeOptions {
  /** What the connection runs over, for messages. */
  readonly transport: string;
  /** Nothing but a SASL layer protects the connection. */
  readonly needsLayer: boolean;
  /** Strength of the TLS session in bits; 0 without TLS. */
  readonly externalSsf: number;
  /** The weakest layer accepted where one is needed, in bits; no matter elsewhere. */
  readonly minSsf?: number | undefined;
  /** "address;port", where the client has one. */
  readonly localAddress?: string | undefined;
  readonly remoteAddress?: string | undefined;
}

/**
 * The SASL layer of a plain TCP connection. Use it only once the reply that said "complete" has
 * been handed to the socket in clear. An error means that the connection must be closed.
 */
export class SaslLayer {
  readonly #server: SaslServer;
  /** Bytes that one packet carries at most. */
  readonly maxOutput: number;

  constructor(server: SaslServer) {
    this.#server = server;
    this.maxOutput = Math.min(server.maxOutput(), maximumPacket);
  }

  /**
   * The packets to send for `bytes`, each within what the client said it accepts.
   * @throws {NativeError} SASL_FAILED
   */
  encode(bytes: Uint8Array): Buffer[] {
    const packets: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += this.maxOutput) {
      packets.push(this.#server.encode(bytes.subarray(at, at + this.maxOutput)));
    }
    return packets;
  }

  /**
   * What the client sent inside the packets that `bytes`, cut anywhere, complete; may be empty.
   * @throws {NativeError} SASL_FAILED: forged, or a packet larger than announced
   */
  decode(bytes: Uint8Array): Buffer {
    return this.#server.decode(bytes);
  }
}

type State = 'listed' | 'busy' | 'started' | 'complete' | 'failed';

/**
 * One client's SASL exchange: {@link open}, then `start`, then `step` until one is complete. Every
 * failure is final and an {@link AuthenticationError}. The owner disposes of it in any case, and
 * not before the connection is closed if it uses `layer`.
 */
export class SaslExchange {
  readonly #server: SaslServer;
  readonly #options: SaslExchangeOptions;
  readonly #mechanisms: string;
  #state: State = 'listed';
  #userName = '';
  #layer: SaslLayer | null = null;

  private constructor(server: SaslServer, options: SaslExchangeOptions, mechanisms: string) {
    this.#server = server;
    this.#options = options;
    this.#mechanisms = mechanisms;
  }

  /**
   * May take as long as DNS does, or as other exchanges that hang: whoever has lost the client by
   * then disposes of the result.
   * @throws {AuthenticationError} unavailable: libsasl2 is missing, or no mechanism fits
   */
  static async open(options: SaslExchangeOptions): Promise<SaslExchange> {
    let server: SaslServer | undefined;
    try {
      server = await SaslServer.open(options);
      const { needsLayer } = options;
      if (options.externalSsf > 0) server.setExternalSsf(options.externalSsf);
      // Others are protected already: no layer, any mechanism libvirt.conf lists.
      server.setSecurity({
        minSsf: needsLayer ? (options.minSsf ?? defaultMinSsf) : 0,
        maxSsf: needsLayer ? maximumSsf : 0,
        maxBufferSize: maximumPacket,
        noPlaintext: needsLayer,
        noAnonymous: needsLayer,
      });
      const mechanisms = server.listMechanisms();
      if (mechanisms === '') {
        throw new AuthenticationError(
          'unavailable',
          `No SASL mechanism is strong enough for a ${options.transport} connection: see mech_list ` +
            'in sasl2/libvirt.conf, the installed SASL modules, and tcp_min_ssf',
        );
      }
      return new SaslExchange(server, options, mechanisms);
    } catch (error) {
      server?.dispose();
      if (!(error instanceof NativeError)) throw error;
      throw new AuthenticationError('unavailable', `SASL cannot be used: ${error.message}`, {
        cause: error,
      });
    }
  }

  /** The mechanisms offered, comma-separated, as libsasl2 lists them. */
  mechanisms(): string {
    return this.#mechanisms;
  }

  /** The authenticated user; empty until complete. */
  get userName(): string {
    return this.#userName;
  }

  /** The layer for everything after the last reply; null when none was negotiated. */
  get layer(): SaslLayer | null {
    return this.#layer;
  }

  /**
   * @param data the client's first data; null (not empty) when it sent none
   * @throws {AuthenticationError}
   */
  async start(mechanism: string, data: Buffer | null): Promise<SaslStep> {
    this.#enter('listed', data);
    if (!this.#mechanisms.split(',').includes(mechanism)) {
      throw this.#fail('mechanism', 'The client chose a SASL mechanism other than those offered');
    }
    return this.#advance(this.#server.start(mechanism, data));
  }

  /** @throws {AuthenticationError} */
  async step(data: Buffer | null): Promise<SaslStep> {
    this.#enter('started', data);
    return this.#advance(this.#server.step(data));
  }

  /** Idempotent; a call under way fails with code `state`. */
  dispose(): void {
    this.#state = 'failed';
    this.#layer = null;
    this.#server.dispose();
  }

  #enter(expected: State, data: Buffer | null): void {
    if (this.#state !== expected) {
      throw this.#fail('state', 'The client sent a message of the SASL exchange out of order');
    }
    if (data && data.length > maximumSaslData) {
      throw this.#fail('oversize', `The client sent ${data.length} bytes in one SASL message`);
    }
    this.#state = 'busy';
  }

  async #advance(call: Promise<SaslStep>): Promise<SaslStep> {
    try {
      const result = await call;
      if (result.data && result.data.length > maximumSaslData) {
        throw this.#fail('oversize', `libsasl2 answered with ${result.data.length} bytes`);
      }
      if (result.complete) this.#finish();
      if (this.#state !== 'busy') throw this.#givenUp();
      this.#state = result.complete ? 'complete' : 'started';
      return result;
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      if (this.#state !== 'busy') throw this.#givenUp();
      throw this.#fail('rejected', `SASL authentication failed: ${error.message}`, error);
    }
  }

  #finish(): void {
    const ssf = this.#server.ssf();
    const least = this.#options.minSsf ?? defaultMinSsf;
    if (this.#options.needsLayer && ssf < least) {
      throw this.#fail('weak', `The SASL layer has ${ssf} bits, tcp_min_ssf asks for ${least}`);
    }
    const layer = ssf > 0 ? new SaslLayer(this.#server) : null;
    if (layer !== null && layer.maxOutput < minimumPacket) {
      throw this.#fail(
        'weak',
        `The client accepts packets of ${layer.maxOutput} bytes, too small for a SASL layer`,
      );
    }
    const userName = this.#server.userName();
    if (!userName) throw this.#fail('rejected', 'The SASL mechanism named no user');
    this.#userName = userName;
    this.#layer = layer;
  }

  #givenUp(): AuthenticationError {
    return this.#fail('state', 'The SASL exchange was given up before it was complete');
  }

  #fail(code: AuthenticationFailure, detail: string, cause?: Error): AuthenticationError {
    this.#state = 'failed';
    return new AuthenticationError(code, detail, { cause });
  }
}
