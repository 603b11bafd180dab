import { copyFromMemory, koffi, libcFunction, type Pointer } from '../../lib/native/library.js';
import { openLibrary } from '../../lib/native/sasl-library.js';
import { loadSasl } from '../../lib/native/sasl.js';

type Values = (Buffer | bigint | number | string | null)[];

const ok = 0;
const interact = 2;
// sasl_callback_t ids (sasl.h): what a mechanism may ask its user for.
const asks = { user: 0x4001, authenticationName: 0x4002, password: 0x4004, realm: 0x4008 };
const promptBytes = 48; // sasl_interact_t; the result pointer at 32, its length at 40

const memcpy = libcFunction<(to: bigint, from: Buffer, length: number) => Pointer>(
  'void *memcpy(void *to, void *from, size_t length)',
);

function bind(): Record<
  'init' | 'create' | 'start' | 'step' | 'set' | 'get' | 'encode' | 'decode' | 'dispose',
  (...values: Values) => number
> {
  loadSasl();
  const file = openLibrary(['libsasl2.so.3', 'libsasl2.so.2']);
  const bound = {
    init: file.func('int sasl_client_init(void *callbacks)'),
    create: file.func(
      'int sasl_client_new(const char *service, const char *server, const char *local, const char *remote, void *callbacks, unsigned int flags, void *connection)',
    ),
    start: file.func(
      'int sasl_client_start(void *connection, const char *mechanisms, void *prompts, void *out, void *length, void *mechanism)',
    ),
    step: file.func(
      'int sasl_client_step(void *connection, void *data, unsigned int length, void *prompts, void *out, void *outLength)',
    ),
    set: file.func('int sasl_setprop(void *connection, int property, void *value)'),
    get: file.func('int sasl_getprop(void *connection, int property, void *value)'),
    encode: file.func(
      'int sasl_encode(void *connection, void *data, unsigned int length, void *out, void *outLength)',
    ),
    decode: file.func(
      'int sasl_decode(void *connection, void *data, unsigned int length, void *out, void *outLength)',
    ),
    dispose: file.func('void sasl_dispose(void *connection)'),
  };
  bound.init(null);
  return bound;
}

let library: ReturnType<typeof bind> | undefined;

export interface ClientOptions {
  readonly user: string;
  readonly password: string;
  readonly maxSsf?: number;
  /** What the client says it accepts in one packet. */
  readonly maxBufferSize?: number;
}

/**
 * libsasl2's client side, as a test's peer; it answers the mechanism's questions from the options.
 */
export class SaslClient {
  readonly #library = (library ??= bind());
  readonly #connection: bigint;
  // These stay referenced while libsasl2 holds their addresses.
  readonly #answers: Map<number, Buffer>;
  readonly #callbacks: Buffer;
  readonly #out = Buffer.alloc(8);
  readonly #length = Buffer.alloc(4);

  constructor(options: ClientOptions) {
    // With the NUL that plug-ins count on, whatever length they are told.
    this.#answers = new Map([
      [asks.user, Buffer.from('\0')],
      [asks.authenticationName, Buffer.from(`${options.user}\0`)],
      [asks.password, Buffer.from(`${options.password}\0`)],
      [asks.realm, Buffer.from('\0')],
    ]);
    const ids = [...Object.values(asks), 0];
    this.#callbacks = Buffer.alloc(ids.length * 24);
    ids.forEach((id, index) => this.#callbacks.writeBigUInt64LE(BigInt(id), index * 24));
    const connection = Buffer.alloc(8);
    this.#check(
      this.#library.create('libvirt', 'localhost', null, null, this.#callbacks, 4, connection),
    );
    this.#connection = connection.readBigUInt64LE();
    const security = Buffer.alloc(32);
    security.writeUInt32LE(options.maxSsf ?? 0, 4);
    security.writeUInt32LE(options.maxBufferSize ?? 65536, 8);
    this.#check(this.#library.set(this.#connection, 101, security));
  }

  /** The first data for the server, null for none. */
  start(mechanism: string): Buffer | null {
    return this.#converse((prompts) =>
      this.#library.start(
        this.#connection,
        mechanism,
        prompts,
        this.#out,
        this.#length,
        Buffer.alloc(8),
      ),
    );
  }

  step(data: Buffer | null): Buffer | null {
    return this.#converse((prompts) =>
      this.#library.step(
        this.#connection,
        data && Buffer.concat([data, Buffer.alloc(1)]),
        data?.length ?? 0,
        prompts,
        this.#out,
        this.#length,
      ),
    );
  }

  encode(bytes: Buffer): Buffer {
    const most = this.#property(2);
    const packets: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += most) {
      const part = bytes.subarray(at, at + most);
      this.#check(
        this.#library.encode(this.#connection, part, part.length, this.#out, this.#length),
      );
      packets.push(this.#output()!);
    }
    return Buffer.concat(packets);
  }

  decode(bytes: Buffer): Buffer {
    this.#check(
      this.#library.decode(this.#connection, bytes, bytes.length, this.#out, this.#length),
    );
    return this.#output() ?? Buffer.alloc(0);
  }

  dispose(): void {
    const pointer = Buffer.alloc(8);
    pointer.writeBigUInt64LE(this.#connection);
    this.#library.dispose(pointer);
  }

  #property(which: number): number {
    this.#check(this.#library.get(this.#connection, which, this.#out));
    return koffi().decode.uint32(this.#out.readBigUInt64LE());
  }

  #converse(call: (prompts: Buffer) => number): Buffer | null {
    const prompts = Buffer.alloc(8);
    this.#out.fill(0);
    this.#length.fill(0);
    let status = call(prompts);
    while (status === interact) {
      this.#answer(prompts.readBigUInt64LE());
      status = call(prompts);
    }
    if (status < ok) throw new Error(`the client's libsasl2 says ${status}`);
    return this.#output();
  }

  #answer(prompts: bigint): void {
    for (let at = prompts; ; at += BigInt(promptBytes)) {
      const id = Number(koffi().decode.uint64(at));
      if (id === 0) return;
      const answer = this.#answers.get(id)!;
      const result = Buffer.alloc(12);
      result.writeBigUInt64LE(koffi().address(answer), 0);
      result.writeUInt32LE(answer.length - 1, 8);
      memcpy(at + 32n, result, result.length);
    }
  }

  #output(): Buffer | null {
    const address = this.#out.readBigUInt64LE();
    return address === 0n ? null : copyFromMemory(address, this.#length.readUInt32LE());
  }

  #check(status: number): void {
    if (status !== ok) throw new Error(`the client's libsasl2 says ${status}`);
  }
}
