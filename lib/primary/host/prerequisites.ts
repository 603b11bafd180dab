import { inspectAccess } from '../../auth/rights-check.js';
import type { Configuration } from '../../config/configuration.js';
import { keyFault } from '../../config/key-fault.js';
import { type TlsContents, type TlsFiles, tlsFiles } from '../../config/paths.js';
import type { Logger } from '../../logging/logger.js';
import type { CertificateExpiry } from '../../control/certificates.js';
import type { WorkerUser } from '../../control/workers.js';
import * as accounts from '../../native/accounts.js';
import { checkSasl } from './sasl.js';
import { workerUserOf } from './worker-user.js';

const fileKeys = { ca: 'ca_file', crl: 'crl_file', cert: 'cert_file', key: 'key_file' } as const;

// TLS is loaded where it is needed, so as not to hold up the start of those that do not need it.

/** The TLS files as they are now. */
export interface CheckedTls {
  readonly certificates: CertificateExpiry;
  readonly tls: TlsContents;
}

/** What the host has for a configuration. */
export interface Prerequisites {
  /** The end of the certificates; null without TLS. */
  readonly certificates: CertificateExpiry | null;
  /** What workers are given; null without TLS. */
  readonly tls: TlsContents | null;
  /** Whom workers run as; null is the user of the primary. */
  readonly user: WorkerUser | null;
}

/**
 * Rejects with ConfigError for what workers would stumble over: their user, the TLS files,
 * libsasl2 and what it reads. Logs what works but deserves a look.
 */
export async function checkPrerequisites(
  configuration: Configuration,
  log: Logger,
): Promise<Prerequisites> {
  const user = checkWorkerUser(configuration);
  const tls = configuration.conf.listen_tls ? await readTls(configuration, log) : withoutTls;
  for (const line of inspectAccess(configuration, accounts)) log.warning(line);
  return { ...tls, user };
}

/**
 * Whom workers run as; null is the user of the primary. Throws ConfigError for a user that
 * cannot do their work, and where SASL is wanted and libsasl2 missing.
 */
export function checkWorkerUser(configuration: Configuration): WorkerUser | null {
  const user = workerUserOf(configuration);
  checkSasl(configuration, user);
  return user;
}

const withoutTls = { certificates: null, tls: null } as const;

/**
 * Reads and checks the TLS files. Rejects with ConfigError for the key that names what is at fault,
 * and logs what works but deserves a look.
 */
export async function readTls(configuration: Configuration, log: Logger): Promise<CheckedTls> {
  const { loadTlsCredentials, readTlsFiles, TlsCredentialsError } =
    await import('../../auth/tls-credentials.js');
  const { TlsPriorityError } = await import('../../auth/tls-priority.js');
  const { inspectPriority } = await import('../../auth/tls-priority-check.js');
  const { credentialsOptions } = await import('../../auth/tls-settings.js');
  const { mode, conf, paths } = configuration;
  const files = tlsFiles(mode, conf, paths.home);
  try {
    const tls = readTlsFiles(files);
    const { warnings, notAfter } = loadTlsCredentials(tls, credentialsOptions(conf));
    for (const line of warnings) log.warning(line);
    for (const line of inspectPriority(configuration).warnings) log.warning(line);
    const certificates = { server: notAfter.cert.getTime(), ca: notAfter.ca.getTime() };
    return { certificates, tls };
  } catch (error) {
    if (error instanceof TlsPriorityError) {
      throw keyFault(configuration, 'tls_priority', error.message);
    }
    if (!(error instanceof TlsCredentialsError)) throw error;
    throw keyFault(configuration, fileKeys[kindOf(files, error.file)], error.message);
  }
}

function kindOf(files: TlsFiles, file: string): keyof TlsFiles {
  const kinds = Object.keys(fileKeys) as (keyof TlsFiles)[];
  return kinds.find((kind) => files[kind] === file) ?? 'cert';
}
