import { copyFromMemory, libcFunction, type Pointer } from './library.js';

const getservbyname = libcFunction<(name: string, protocol: string) => Pointer>(
  'void *getservbyname(const char *name, const char *protocol)',
);

/** Where struct servent (64-bit) holds the port, in network order. */
const portOffset = 16n;

/**
 * The TCP port of a service of this system's databases (/etc/services), or null when none has that
 * name.
 */
export function servicePort(name: string): number | null {
  const entry = getservbyname(name, 'tcp');
  if (entry === null) return null;
  return copyFromMemory(entry + portOffset, 2).readUInt16BE(0);
}
