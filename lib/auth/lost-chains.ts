/**
 * Versions of Node.js that throw away what a client sent above its own certificate before a server
 * may look at it. nodejs/node#64677 brought that with 26.8.0 and 24.21.0; #65602 mended it in
 * 26.9.0, and in no 24 yet.
 */
const losing = /^v(?:24\.21\.\d+|26\.8\.[0-2])$/;

/**
 * Whether this Node.js, or the one of the version given as in `process.version`, loses clients'
 * chains.
 */
export function losesChains(version: string = process.version): boolean {
  return losing.test(version);
}
