import { isIPv6 } from 'node:net';
import { groupName, userName } from '../native/accounts.js';
import type { TypedParameter } from '../rpc/typed-parameters.js';
import type { AdminClient, ClientFigures, WorkerFigures } from './backend.js';
import { invalid } from './errors.js';

/** Names and types of the parameters. Source: libvirt-admin.h. */
const unsigned = (field: string, value: number): TypedParameter => ({
  field,
  type: 'unsigned',
  value,
});

export function workerParameters(figures: WorkerFigures): TypedParameter[] {
  return [
    unsigned('minWorkers', figures.minWorkers),
    unsigned('maxWorkers', figures.maxWorkers),
    unsigned('nWorkers', figures.workers),
    unsigned('freeWorkers', figures.freeWorkers),
    // No worker is kept for urgent calls.
    unsigned('prioWorkers', 0),
    unsigned('jobQueueDepth', figures.queuedCalls),
  ];
}

export function limitParameters(figures: ClientFigures): TypedParameter[] {
  return [
    unsigned('nclients_max', figures.maxClients),
    unsigned('nclients', figures.clients),
    unsigned('nclients_unauth_max', figures.maxAnonymousClients),
    unsigned('nclients_unauth', figures.anonymous),
  ];
}

/** Who a client is; only what is known. */
export function identityParameters(client: AdminClient): TypedParameter[] {
  const { readOnly, local, remoteAddress, saslUserName, x509Name } = client;
  const parameters: TypedParameter[] = [{ field: 'readonly', type: 'boolean', value: readOnly }];
  const number = (field: string, value: number): void => {
    // The wire has signed numbers here: the highest user ids turn negative, as libvirtd's do.
    parameters.push({ field, type: 'int', value: value | 0 });
  };
  const text = (field: string, value: string | null): void => {
    if (value !== null) parameters.push({ field, type: 'string', value });
  };
  text('sasl_user_name', saslUserName);
  if (local !== null) {
    number('unix_user_id', local.uid);
    text('unix_user_name', userName(local.uid));
    number('unix_group_id', local.gid);
    text('unix_group_name', groupName(local.gid));
    number('unix_process_id', local.pid);
  }
  text('sock_addr', remoteAddress === null ? null : socketAddress(remoteAddress));
  text('tls_x509_dname', x509Name);
  text('selinux_context', local?.selinuxContext ?? null);
  return parameters;
}

/** `address:port` of libsasl2's `address;port`, an IPv6 address in brackets. */
function socketAddress(text: string): string {
  const [address = '', port = ''] = text.split(';');
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}

/**
 * The values of parameters that a caller wants to set, each an unsigned number, by their names, of
 * which all others are refused. Throws RpcError.
 */
export function readSettings<Name extends string>(
  parameters: readonly TypedParameter[],
  names: readonly Name[],
): Partial<Record<Name, number>> {
  const values: Partial<Record<Name, number>> = {};
  for (const parameter of parameters) {
    const name = names.find((known) => known === parameter.field);
    if (name === undefined) {
      throw invalid(`parameter '${parameter.field}' cannot be set: only ${names.join(', ')} can`);
    }
    if (parameter.type !== 'unsigned') {
      throw invalid(
        `parameter '${name}' must be an unsigned number, not of type ${parameter.type}`,
      );
    }
    if (values[name] !== undefined) throw invalid(`parameter '${name}' is given more than once`);
    values[name] = parameter.value;
  }
  return values;
}
