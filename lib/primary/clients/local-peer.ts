import { existsSync } from 'node:fs';
import type { LocalPeer } from '../../control/messages.js';
import { peerCredentials, peerGroups, peerSecurityLabel } from '../../native/peer.js';
import { processStartTime } from '../../native/process-info.js';

/** Only where SELinux runs is a peer's security label an SELinux context. */
const hasSelinux = existsSync('/sys/fs/selinux/enforce');

/**
 * Who connected, asked of the kernel at once so that the pid cannot have been given to another
 * process.
 */
export function localPeer(fd: number): LocalPeer {
  const { pid, uid, gid } = peerCredentials(fd);
  return {
    pid,
    uid,
    gid,
    groups: peerGroups(fd),
    startTime: processStartTime(pid)?.toString() ?? null,
    selinuxContext: hasSelinux ? peerSecurityLabel(fd) : null,
  };
}
