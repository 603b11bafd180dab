import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { koffi, libc } from './library.js';

type Library = ReturnType<typeof libc>;

const openSslFile = 'libcrypto.so.3';
const modulesDirectory = 1003; // OPENSSL_INFO_MODULES_DIR (crypto.h)

/**
 * Every allocator has it. For malloc and free themselves the linker names stubs of node's, whose
 * they are or not.
 */
const telltale = 'memalign';

/**
 * Kept open: what is loaded once stays bound as it is, however libsasl2 and OpenSSL open it later.
 */
const bound: Library[] = [];

/**
 * Whether a library may be bound to what it was linked with before what the process has
 * (RTLD_DEEPBIND): with glibc, and only while malloc is glibc's own, since memory would be taken
 * from the one and given back to another allocator (LD_PRELOAD of jemalloc and the like).
 */
export function mayBindDeep(): boolean {
  try {
    return addressIn(koffi().load('libc.so.6')) === addressIn(libc());
  } catch {
    return false;
  }
}

/**
 * Loads libsasl2's plug-ins so that they use the system's OpenSSL, with which they were built. A
 * plain dlopen, as libsasl2's own, would bind them to the symbols that the node executable exports,
 * its OpenSSL among them.
 *
 * What that costs shows with DIGEST-MD5's layer: the plug-in of Debian 12 and Ubuntu fetches RC4 at
 * each login and never frees it (Debian 13's does). With the OpenSSL 3.5 of Node 22, 24 and 26 each
 * login then loses three of the process's 1024 pthread keys, and from the 338th on all fail; each
 * client that is logged in holds three more. Bound to Debian 12's OpenSSL 3.0 neither takes a key;
 * what stays is the plug-in's own leak of 30 KiB a login, as in the C daemon. The provider with RC4
 * has to be bound alike: it opens a library context too.
 *
 * Not done instead: dlmopen brings a second C library, whose keys are as few and whose memory ours
 * may not free; a process of its own for logins and layers costs a round trip for every packet, and
 * runs out in its turn. Where OpenSSL 3.5 is the system's own and the plug-in is the old one, this
 * does not help, nor where it cannot be done (another allocator, musl): there `threadKeys` tells
 * when a worker has to go.
 *
 * A plug-in that cannot be loaded is left for libsasl2 to complain of.
 */
export function bindPlugIns(): void {
  if (bound.length > 0 || !mayBindDeep()) return;
  const openSsl = bind(openSslFile);
  if (openSsl === null) return;
  const providers = process.env['OPENSSL_MODULES'] ?? defaultModules(openSsl);
  bind(join(providers, 'legacy.so'));
  for (const directory of plugInDirectories()) {
    for (const name of namesIn(directory)) if (name.endsWith('.so')) bind(join(directory, name));
  }
}

const addressIn = (library: Library): bigint => koffi().address(library.symbol(telltale));

function bind(file: string): Library | null {
  try {
    const library = koffi().load(file, { deep: true });
    bound.push(library);
    return library;
  } catch {
    return null;
  }
}

function defaultModules(openSsl: Library): string {
  const info = openSsl.func('const char *OPENSSL_info(int what)') as (what: number) => string;
  return info(modulesDirectory);
}

/**
 * Where libsasl2, which must be loaded, looks: $SASL_PATH, or beside itself, as all distributions
 * build it.
 */
function plugInDirectories(): string[] {
  const path = process.env['SASL_PATH'];
  if (path !== undefined) return path.split(':');
  const libsasl = /\/\S*\/libsasl2\.so\S*/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[0];
  return libsasl === undefined ? [] : [join(dirname(libsasl), 'sasl2')];
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
