import { fileURLToPath } from 'node:url';

/**
 * OpenSSL's settings that keep TLS 1.3 from sending session tickets, which no option of node:tls
 * does. Every process that serves libvirt's TLS clients must run with `node --openssl-config=` this
 * file: those clients take a ticket for a failure of the server to let them in.
 */
export const openSslConfiguration = fileURLToPath(
  new URL('../../../conf/openssl.cnf', import.meta.url),
);
