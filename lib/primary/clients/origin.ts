import type { ClientIntroduction } from '../../control/messages.js';

const mappedAddress = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/**
 * Groups of 16 bits that a network gives to a site or a link; the rest of an IPv6 address its owner
 * chooses at will.
 */
const prefixGroups = 4;

const groups = 8;

/**
 * Whose connection it is when those of "the same" are counted: a user of this host, an IPv4
 * address, also one that came to an IPv6 socket, or the first 64 bits of an IPv6 address, with its
 * zone.
 */
export function originOf({
  local,
  remoteAddress,
}: Pick<ClientIntroduction, 'local' | 'remoteAddress'>): string {
  if (local !== null) return `uid ${local.uid}`;
  const address = (remoteAddress ?? '').replace(/;\d+$/, '');
  const mapped = mappedAddress.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  return address.includes(':') ? prefixOf(address) : address;
}

function prefixOf(address: string): string {
  const [bare = '', zone] = address.toLowerCase().split('%');
  const [before = [], after = []] = bare
    .split('::')
    .map((part) => part.split(':').filter((group) => group !== ''));
  const left = bare.includes('::') ? Math.max(groups - before.length - after.length, 0) : 0;
  const all = [...before, ...Array.from({ length: left }, () => '0'), ...after];
  return `${all.slice(0, prefixGroups).join(':')}::/64${zone === undefined ? '' : `%${zone}`}`;
}
