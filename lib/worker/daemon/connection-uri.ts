import { errorCode, errorDomain, RpcError } from '../../rpc/rpc-error.js';

/** Where a client's URI leads: the driver whose daemon serves it, and the URI to open there. */
export interface ConnectionTarget {
  readonly driver: string;
  readonly uri: string;
}

/** RFC 3986, appendix B: scheme, authority, path, query. */
const uriParts =
  /^(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?$/;
const uriCharacters = /^(?:[A-Za-z0-9._~:/?#[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$/;

const knownTransports = ['tls', 'unix', 'ssh', 'ext', 'tcp', 'libssh2', 'libssh'];

/**
 * Query parameters that tell libvirt's client how to reach a server; they mean nothing to that
 * server.
 */
const clientParameters = new Set([
  'name',
  'command',
  'socket',
  'auth',
  'sshauth',
  'netcat',
  'keyfile',
  'pkipath',
  'known_hosts',
  'known_hosts_verify',
  'knownhosts',
  'no_verify',
  'no_tty',
  'no_sanity',
  'mode',
  'proxy',
  'tls_priority',
]);

/**
 * Reads the URI of CONNECT_OPEN. Throws the RpcError that the client is to see: for a URI that is
 * none, that names no driver, or that names a server, since the proxy does not dial out on a
 * client's word.
 */
export function parseConnectionUri(text: string): ConnectionTarget {
  // In this order: only of text without line feeds `uriParts` never has to try one way after the
  // other.
  const parts = uriCharacters.test(text) ? uriParts.exec(text) : null;
  const [, scheme, authority = '', path = '', query] = parts ?? [];
  const relativeColon = scheme === undefined && /^[^/]*:/.test(text);
  if (parts === null || relativeColon) {
    throw new RpcError(errorCode.internal, errorDomain.uri, `Unable to parse URI ${text}`);
  }
  if (scheme === undefined) {
    throw new RpcError(
      errorCode.noConnection,
      errorDomain.none,
      `URI '${text}' does not include a driver name`,
    );
  }
  const plus = scheme.indexOf('+');
  const driver = plus < 0 ? scheme : scheme.slice(0, plus);
  const transport = plus < 0 ? null : scheme.slice(plus + 1);
  if (transport !== null && !knownTransports.includes(transport)) {
    throw new RpcError(
      errorCode.invalidArgument,
      errorDomain.remote,
      `remote_open: transport in URL not recognised (should be ${knownTransports.join('|')})`,
    );
  }
  if (authority !== '' || (transport !== null && transport !== 'unix')) {
    throw new RpcError(
      errorCode.operationUnsupported,
      errorDomain.rpc,
      `the URI '${text}' names another server, and this proxy opens only daemons of its own host; ` +
        'connect to that server directly',
    );
  }
  const kept = (query ?? '')
    .split('&')
    .filter((parameter) => parameter !== '')
    .filter((parameter) => !clientParameters.has(parameter.split('=', 1)[0] ?? ''));
  return { driver, uri: `${driver}://${path}${kept.length > 0 ? `?${kept.join('&')}` : ''}` };
}
