import type { ConfSettings } from '../config/keys.js';
import type { TlsCredentialsOptions } from './tls-credentials.js';

/** What virtproxyd.conf says of the use of the TLS files. */
export function credentialsOptions(
  conf: Pick<
    ConfSettings,
    'tls_no_sanity_certificate' | 'tls_no_verify_certificate' | 'tls_priority'
  >,
): TlsCredentialsOptions {
  return {
    sanityCheck: !conf.tls_no_sanity_certificate,
    verifyClients: !conf.tls_no_verify_certificate,
    priority: conf.tls_priority,
  };
}
