import { NativeError } from './error.js';
import { copyFromMemory, koffi } from './library.js';
import { loadSasl, saslContinue, saslOk, type SaslLibrary } from './sasl-library.js';

export { loadSasl } from './sasl-library.js';

/**
 * Result of one step; `data` for the client is null where libsasl2 gives NULL, which it tells from
 * empty.
 */
export interface SaslStep {
  readonly complete: boolean;
  readonly data: Buffer | null;
}

/**
 * The mechanisms of all plug-ins there are, whatever libvirt.conf chooses of them.
 * @throws {NativeError} as {@link loadSasl}
 */
export function installedMechanisms(): string[] {
  const names = loadSasl().globalMechanisms();
  const found: string[] = [];
  for (let at = names ?? 0n; at !== 0n; at += pointerBytes) {
    const name = copyFromMemory(at, Number(pointerBytes)).readBigUInt64LE();
    if (name === 0n) break;
    found.push(koffi().decode.string(name));
  }
  return found;
}

const pointerBytes = 8n;

/** What a mechanism has to fulfil; strengths (SSF) are in bits, 0 to 2^32 - 1. */
export interface SaslSecurity {
  readonly minSsf: number;
  readonly maxSsf: number;
  /** The largest encoded packet this side accepts, in bytes. */
  readonly maxBufferSize: number;
  readonly noPlaintext: boolean;
  readonly noAnonymous: boolean;
}

export interface SaslAddresses {
  /** "address;port", or absent. */
  readonly localAddress?: string | undefined;
  readonly remoteAddress?: string | undefined;
}

const successData = 0x4; // SASL_SUCCESS_DATA
const property = { userName: 0, ssf: 1, maxOutput: 2, externalSsf: 100, security: 101 } as const;
const flagNoPlaintext = 0x1;
const flagNoAnonymous = 0x10;

/**
 * Exchanges that may be inside libsasl2 at once. The calls occupy threads of libuv's pool, which
 * has four unless UV_THREADPOOL_SIZE says otherwise; one stays free for files and name look-ups
 * even when saslauthd hangs. Exchanges beyond it wait in line, at most one call of each.
 */
const maximumCalls = 3;
let runningCalls = 0;
const waitingCalls: (() => void)[] = [];

async function enterLibrary(): Promise<void> {
  if (runningCalls < maximumCalls) runningCalls += 1;
  else await new Promise<void>((resolve) => waitingCalls.push(resolve));
}

function leaveLibrary(): void {
  const next = waitingCalls.shift();
  if (next) next();
  else runningCalls -= 1;
}

/**
 * The server's end of one SASL exchange. Calls that may block (DNS, saslauthd, key derivation) run
 * on another thread, one at a time; the others take microseconds. libsasl2 sets them no time limit
 * and they cannot be cancelled: while one hangs, process.exit() waits for it, only SIGKILL does
 * not. Every failure is a {@link NativeError} with code SASL_FAILED whose message is for the log,
 * not for the client.
 */
export class SaslServer {
  readonly #library: SaslLibrary;
  readonly #connection: bigint;
  readonly #out = Buffer.alloc(8);
  readonly #outLength = Buffer.alloc(4);
  #busy = false;
  #disposed = false;
  #freed = false;

  private constructor(library: SaslLibrary, connection: bigint) {
    this.#library = library;
    this.#connection = connection;
  }

  /**
   * Looks up this host's full name, so it may take as long as DNS does.
   * @throws {NativeError} also SASL_MISSING
   */
  static async open(addresses: SaslAddresses): Promise<SaslServer> {
    const library = loadSasl();
    const connection = Buffer.alloc(8);
    await enterLibrary();
    let status: number;
    try {
      status = await new Promise<number>((resolve, reject) => {
        library.serverNew.async(
          'libvirt',
          null,
          null,
          addresses.localAddress ?? null,
          addresses.remoteAddress ?? null,
          null,
          successData,
          connection,
          settle(resolve, reject),
        );
      });
    } finally {
      leaveLibrary();
    }
    if (status !== saslOk) throw failure(library, 'sasl_server_new', status, null);
    return new SaslServer(library, connection.readBigUInt64LE());
  }

  /** Tells of a protecting layer outside SASL, such as TLS, with its strength in bits. */
  setExternalSsf(bits: number): void {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(bits);
    this.#check(
      'sasl_setprop(SASL_SSF_EXTERNAL)',
      this.#library.setProperty(this.#open(), property.externalSsf, value),
    );
  }

  setSecurity(security: SaslSecurity): void {
    // sasl_security_properties_t: four unsigned, then two pointers that stay NULL.
    const value = Buffer.alloc(32);
    value.writeUInt32LE(security.minSsf, 0);
    value.writeUInt32LE(security.maxSsf, 4);
    value.writeUInt32LE(security.maxBufferSize, 8);
    value.writeUInt32LE(
      (security.noPlaintext ? flagNoPlaintext : 0) | (security.noAnonymous ? flagNoAnonymous : 0),
      12,
    );
    this.#check(
      'sasl_setprop(SASL_SEC_PROPS)',
      this.#library.setProperty(this.#open(), property.security, value),
    );
  }

  /** The mechanisms the client may choose from, comma-separated; empty when there is none. */
  listMechanisms(): string {
    this.#check(
      'sasl_listmech',
      this.#library.listMechanisms(this.#open(), null, '', ',', '', this.#out, null, null),
    );
    return koffi().decode.string(this.#out.readBigUInt64LE());
  }

  /** @param data the client's, null for none at all */
  start(mechanism: string, data: Buffer | null): Promise<SaslStep> {
    return this.#exchange('sasl_server_start', data, (input, settled) => {
      this.#library.serverStart.async(
        this.#connection,
        mechanism,
        input,
        data?.length ?? 0,
        this.#out,
        this.#outLength,
        settled,
      );
    });
  }

  step(data: Buffer | null): Promise<SaslStep> {
    return this.#exchange('sasl_server_step', data, (input, settled) => {
      this.#library.serverStep.async(
        this.#connection,
        input,
        data?.length ?? 0,
        this.#out,
        this.#outLength,
        settled,
      );
    });
  }

  /** The authenticated user, as the mechanism's plug-in writes it; fails before completion. */
  userName(): string | null {
    const address = this.#property(property.userName);
    return address === 0n ? null : koffi().decode.string(address);
  }

  /** Strength of the negotiated layer in bits; 0 when there is none. */
  ssf(): number {
    return koffi().decode.uint32(this.#property(property.ssf));
  }

  /** The most bytes one {@link encode} may take. */
  maxOutput(): number {
    return koffi().decode.uint32(this.#property(property.maxOutput));
  }

  /** Protects at most {@link maxOutput} bytes for the client. */
  encode(bytes: Uint8Array): Buffer {
    return this.#layer('sasl_encode', this.#library.encode, bytes);
  }

  /**
   * What the client protected; empty while a packet is incomplete, of which libsasl2 keeps the
   * part.
   */
  decode(bytes: Uint8Array): Buffer {
    return this.#layer('sasl_decode', this.#library.decode, bytes);
  }

  /**
   * Idempotent. While a call is under way, the memory is freed when it returns; the call then
   * fails.
   */
  dispose(): void {
    this.#disposed = true;
    if (!this.#busy) this.#free();
  }

  async #exchange(
    call: string,
    data: Buffer | null,
    run: (input: Buffer | null, settled: (error: Error | null, status: number) => void) => void,
  ): Promise<SaslStep> {
    this.#open();
    this.#busy = true;
    // A copy: the caller may use its buffer again while the call runs. One byte longer, so that
    // empty is not NULL, and what a plug-in takes for a string has an end.
    const input = data && Buffer.concat([data, Buffer.alloc(1)]);
    this.#out.fill(0);
    this.#outLength.fill(0);
    try {
      await enterLibrary();
      try {
        this.#refuseDisposed();
        const status = await new Promise<number>((resolve, reject) => {
          run(input, settle(resolve, reject));
        });
        this.#refuseDisposed();
        if (status !== saslOk && status !== saslContinue) {
          throw failure(this.#library, call, status, this.#connection);
        }
        return { complete: status === saslOk, data: this.#output() };
      } finally {
        leaveLibrary();
      }
    } finally {
      input?.fill(0);
      this.#busy = false;
      if (this.#disposed) this.#free();
    }
  }

  #layer(call: string, transform: SaslLibrary['encode'], bytes: Uint8Array): Buffer {
    const connection = this.#open();
    if (bytes.length === 0) return Buffer.alloc(0);
    this.#out.fill(0);
    this.#outLength.fill(0);
    this.#check(call, transform(connection, bytes, bytes.length, this.#out, this.#outLength));
    return this.#output() ?? Buffer.alloc(0);
  }

  #output(): Buffer | null {
    const address = this.#out.readBigUInt64LE();
    return address === 0n ? null : copyFromMemory(address, this.#outLength.readUInt32LE());
  }

  #property(which: number): bigint {
    const status = this.#library.getProperty(this.#open(), which, this.#out);
    this.#check('sasl_getprop', status);
    return this.#out.readBigUInt64LE();
  }

  #check(call: string, status: number): void {
    if (status !== saslOk) throw failure(this.#library, call, status, this.#connection);
  }

  /** The connection, which nobody else may touch while a call is under way or after disposal. */
  #open(): bigint {
    this.#refuseDisposed();
    if (this.#busy) {
      throw new NativeError('SASL_FAILED', 'busy', 'a call of this SASL exchange is under way');
    }
    return this.#connection;
  }

  #refuseDisposed(): void {
    if (this.#disposed) {
      throw new NativeError('SASL_FAILED', 'sasl_dispose', 'the SASL exchange has been given up');
    }
  }

  #free(): void {
    if (this.#freed) return;
    this.#freed = true;
    const pointer = Buffer.alloc(8);
    pointer.writeBigUInt64LE(this.#connection);
    this.#library.dispose(pointer);
  }
}

function settle(
  resolve: (status: number) => void,
  reject: (error: Error) => void,
): (error: Error | null, status: number) => void {
  return (error, status) => {
    if (error) reject(error);
    else resolve(status);
  };
}

function failure(
  library: SaslLibrary,
  call: string,
  status: number,
  connection: bigint | null,
): NativeError {
  const detail = connection === null ? null : library.errorDetail(connection);
  const text = detail ?? library.errorText(status, null, null);
  // The text may quote what the client sent: keep it from forging lines of the log.
  return new NativeError('SASL_FAILED', call, `${call}: ${text.replace(/\p{Cc}/gu, '?')}`);
}
