import type { LocalPeer } from '../../control/messages.js';
import type { AuditEntry } from '../../logging/audit-file.js';
import { groupName, userName } from '../../native/accounts.js';
import type { TypedParameter } from '../../rpc/typed-parameters.js';

/**
 * Who a client is, as far as is known: the kernel's word for UNIX sockets, and what logging in has
 * shown.
 */
export interface Identity {
  readonly local: LocalPeer | null;
  readonly saslUserName: string | null;
  /** Distinguished name of the client's certificate. */
  readonly x509Name: string | null;
}

/**
 * The arguments of CONNECT_SET_IDENTITY, by which a daemon learns whom it serves. Only what is
 * known is sent. Field names are libvirt's (libvirt-host.h, VIR_CONNECT_IDENTITY_*).
 */
export function identityParameters(identity: Identity): TypedParameter[] {
  const parameters: TypedParameter[] = [];
  const text = (field: string, value: string | null): void => {
    if (value !== null) parameters.push({ field, type: 'string', value });
  };
  const { local } = identity;
  if (local !== null) {
    const { uid, gid, pid, startTime } = local;
    text('user-name', userName(uid));
    parameters.push({ field: 'unix-user-id', type: 'unsignedHyper', value: BigInt(uid) });
    text('group-name', groupName(gid));
    parameters.push({ field: 'unix-group-id', type: 'unsignedHyper', value: BigInt(gid) });
    parameters.push({ field: 'process-id', type: 'hyper', value: BigInt(pid) });
    if (startTime !== null) {
      parameters.push({ field: 'process-time', type: 'unsignedHyper', value: BigInt(startTime) });
    }
  }
  text('sasl-user-name', identity.saslUserName);
  text('x509-distinguished-name', identity.x509Name);
  text('selinux-context', local?.selinuxContext ?? null);
  return parameters;
}

/** A client's identity in a log line. */
export function describeIdentity({ local, saslUserName, x509Name }: Identity): string {
  const parts = [
    ...(local === null ? [] : [`uid ${local.uid}`, `pid ${local.pid}`]),
    ...(saslUserName === null ? [] : [`SASL user ${saslUserName}`]),
    ...(x509Name === null ? [] : [`DN ${x509Name}`]),
  ];
  return parts.join(', ');
}

/** A client's identity in an audit entry; `remoteAddress` is `address;port`. */
export function auditedIdentity(
  { local, saslUserName, x509Name }: Identity,
  remoteAddress: string | null,
): Pick<AuditEntry, 'uid' | 'user' | 'pid' | 'sasl_user' | 'dn' | 'address' | 'port'> {
  const user = local === null ? null : userName(local.uid);
  const [address, port] = remoteAddress?.split(';') ?? [];
  return {
    ...(local !== null && { uid: local.uid, pid: local.pid }),
    ...(user !== null && { user }),
    ...(saslUserName !== null && { sasl_user: saslUserName }),
    ...(x509Name !== null && { dn: x509Name }),
    ...(address !== undefined && { address, port: Number(port) }),
  };
}
