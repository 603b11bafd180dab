import { errorText } from '../error-text.js';
import { NativeError } from './error.js';
import { koffi, libc, libcFunction, type CFunction, type Pointer } from './library.js';
import { bindPlugIns, mayBindDeep } from './sasl-plugins.js';

type Connection = bigint;
/** `out` and `outLength` are memory for C's `const char **` and `unsigned *`. */
type Layer = (
  connection: Connection,
  input: Uint8Array,
  length: number,
  out: Buffer,
  outLength: Buffer,
) => number;

/**
 * libsasl2's calls for the server side (sasl.h). Those that may ask the network or a daemon are to
 * be called through `async` only. Results are `saslOk`, `saslContinue` or an error.
 */
export interface SaslLibrary {
  readonly serverNew: CFunction<
    (
      service: string,
      serverName: null,
      realm: null,
      localAddress: string | null,
      remoteAddress: string | null,
      callbacks: null,
      flags: number,
      connection: Buffer,
    ) => number
  >;
  readonly serverStart: CFunction<
    (
      connection: Connection,
      mechanism: string,
      data: Buffer | null,
      length: number,
      out: Buffer,
      outLength: Buffer,
    ) => number
  >;
  readonly serverStep: CFunction<
    (
      connection: Connection,
      data: Buffer | null,
      length: number,
      out: Buffer,
      outLength: Buffer,
    ) => number
  >;
  readonly listMechanisms: (
    connection: Connection,
    user: null,
    prefix: string,
    separator: string,
    suffix: string,
    list: Buffer,
    length: null,
    count: null,
  ) => number;
  /** A NULL-terminated array of names; NULL when there is none. */
  readonly globalMechanisms: () => Pointer;
  readonly setProperty: (connection: Connection, property: number, value: Buffer) => number;
  readonly getProperty: (connection: Connection, property: number, value: Buffer) => number;
  readonly encode: Layer;
  readonly decode: Layer;
  readonly errorDetail: (connection: Connection) => string | null;
  readonly errorText: (status: number, languages: null, language: null) => string;
  readonly dispose: (connection: Buffer) => void;
}

export const saslOk = 0;
export const saslContinue = 1;

// Its name where the ABI was renumbered in 2.1.26 (Fedora, SUSE, Arch), and where it was not
// (Debian).
const fileNames = ['libsasl2.so.3', 'libsasl2.so.2'];

let library: SaslLibrary | undefined;

/**
 * Loads and initialises the system's libsasl2 as application "libvirt" at the first call, so that
 * libvirt.conf in its configuration directories rules ($SASL_CONF_PATH overrides them). That reads
 * every plug-in and takes some 10 ms: a process that will need it should call this when it starts.
 * @throws {NativeError} SASL_MISSING when it is not installed; SASL_FAILED when it refuses, for
 *   instance because libvirt.conf cannot be read
 */
export function loadSasl(): SaslLibrary {
  if (library === undefined) {
    const file = openLibrary(fileNames);
    bindPlugIns();
    library = initialise(file);
  }
  return library;
}

/**
 * The first of `names` the dynamic linker finds; it uses its own libraries before what node
 * exports.
 */
export function openLibrary(names: readonly string[]): ReturnType<typeof libc> {
  const reasons: string[] = [];
  for (const name of names) {
    try {
      return koffi().load(name, { deep: mayBindDeep() });
    } catch (error) {
      reasons.push(`${name}: ${errorText(error)}`);
    }
  }
  throw new NativeError(
    'SASL_MISSING',
    'dlopen',
    `The Cyrus SASL library cannot be loaded (${reasons.join('; ')}): install it (libsasl2-2 on ` +
      'Debian, cyrus-sasl-lib on Fedora) or set no auth_ key to "sasl"',
  );
}

function initialise(file: ReturnType<typeof libc>): SaslLibrary {
  const bound: SaslLibrary = {
    serverNew: file.func(
      'int sasl_server_new(const char *service, const char *name, const char *realm, const char *local, const char *remote, void *callbacks, unsigned int flags, void *connection)',
    ),
    serverStart: file.func(
      'int sasl_server_start(void *connection, const char *mechanism, void *data, unsigned int length, void *out, void *outLength)',
    ),
    serverStep: file.func(
      'int sasl_server_step(void *connection, void *data, unsigned int length, void *out, void *outLength)',
    ),
    listMechanisms: file.func(
      'int sasl_listmech(void *connection, const char *user, const char *prefix, const char *separator, const char *suffix, void *list, void *length, void *count)',
    ),
    globalMechanisms: file.func('void *sasl_global_listmech()'),
    setProperty: file.func('int sasl_setprop(void *connection, int property, void *value)'),
    getProperty: file.func('int sasl_getprop(void *connection, int property, void *value)'),
    encode: file.func(
      'int sasl_encode(void *connection, void *input, unsigned int length, void *out, void *outLength)',
    ),
    decode: file.func(
      'int sasl_decode(void *connection, void *input, unsigned int length, void *out, void *outLength)',
    ),
    errorDetail: file.func('const char *sasl_errdetail(void *connection)'),
    errorText: file.func(
      'const char *sasl_errstring(int status, const char *languages, void *language)',
    ),
    dispose: file.func('void sasl_dispose(void *connection)'),
  };
  useRealMutexes(file);
  const status = file.func('int sasl_server_init(void *callbacks, const char *application)')(
    null,
    'libvirt',
  ) as number;
  if (status !== saslOk) {
    throw new NativeError(
      'SASL_FAILED',
      'sasl_server_init',
      `sasl_server_init failed: ${bound.errorText(status, null, null)} (${status}); see whether ` +
        'sasl2/libvirt.conf can be read',
    );
  }
  return bound;
}

const mutexBytes = 64; // pthread_mutex_t: 40 on x86-64, 48 on AArch64

const calloc = libcFunction<(count: number, size: number) => Pointer>(
  'void *calloc(size_t count, size_t size)',
);

/**
 * libsasl2 locks nothing unless it is given mutexes, and exchanges run on several threads at once.
 * A mutex of zeros is an initialised one in glibc and musl. Must come before the first sasl_*_init.
 * Only the allocation is JavaScript, which other threads have to wait for; they lock without it.
 */
function useRealMutexes(file: ReturnType<typeof libc>): void {
  const allocate = koffi().register(
    () => calloc(1, mutexBytes),
    koffi().pointer(koffi().proto('void *sasl_mutex_alloc_t()')),
  );
  const setMutex = file.func(
    'void sasl_set_mutex(void *alloc, void *lock, void *unlock, void *free)',
  );
  setMutex(
    allocate,
    libc().symbol('pthread_mutex_lock'),
    libc().symbol('pthread_mutex_unlock'),
    libc().symbol('free'),
  );
}
