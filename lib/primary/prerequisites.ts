import { homedir } from 'node:os';
import { loadTlsCredentials } from '../auth/tls-credentials.js';
import { credentialsOptions } from '../auth/tls-settings.js';
import type { Configuration } from '../config/configuration.js';
import { tlsFiles } from '../config/paths.js';
import type { Logger } from '../logging/logger.js';
import { loadSasl } from '../native/sasl.js';

/** Throws the error that workers would meet: one about the TLS files or about libsasl2. */
export function checkPrerequisites(configuration: Configuration, log: Logger): void {
  if (configuration.conf.listen_tls) checkTlsFiles(configuration, log);
  if (needsSasl(configuration)) loadSasl();
}

/** Throws TlsCredentialsError or TlsPriorityError, and logs what works but deserves a look. */
export function checkTlsFiles({ mode, conf }: Configuration, log: Logger): void {
  const files = tlsFiles(mode, conf, homedir());
  for (const line of loadTlsCredentials(files, credentialsOptions(conf)).warnings) {
    log.warning(line);
  }
}

/** Whether some listener asks for SASL; only then must the host have the library. */
function needsSasl({ conf, mode }: Configuration): boolean {
  return (
    conf.auth_unix_rw === 'sasl' ||
    (mode === 'system' && conf.auth_unix_ro === 'sasl') ||
    (conf.listen_tcp && conf.auth_tcp === 'sasl') ||
    (conf.listen_tls && conf.auth_tls === 'sasl')
  );
}
