import { saslFiles } from '../../auth/sasl-files.js';
import type { Configuration } from '../../config/configuration.js';
import { clusterKeyFault, keyFault } from '../../config/key-fault.js';
import type { ConfKey } from '../../config/keys.js';
import type { WorkerUser } from '../../control/workers.js';
import { groupName } from '../../native/accounts.js';
import { installedMechanisms, loadSasl } from '../../native/sasl.js';
import { needsFor, refusedTo, type AccessKind, type Need } from './access.js';

/**
 * Where some listener asks for SASL: throws ConfigError when libsasl2 is missing, or when workers,
 * if they are `user`, may not read what it reads.
 */
export function checkSasl(configuration: Configuration, user: WorkerUser | null): void {
  const key = saslKey(configuration);
  if (key === null) return;
  try {
    loadSasl();
  } catch (error) {
    throw keyFault(configuration, key, (error as Error).message);
  }
  if (user !== null) assertSaslReadable(configuration, user, installedMechanisms());
}

function assertSaslReadable(
  configuration: Configuration,
  user: WorkerUser,
  installed: readonly string[],
): void {
  const files = saslFiles(process.env, installed);
  const needs = files.flatMap(({ path, isSocket }) => needsFor(path, isSocket ? 'w' : 'r'));
  const refused = refusedTo(user, needs);
  if (refused.length === 0) return;
  const name = configuration.cluster.worker_user ?? '';
  const named = files.map(({ what, path }) => `${what} in ${path}`).join(', ');
  throw clusterKeyFault(
    configuration,
    'cluster',
    'worker_user',
    `'${name}' may not get at all that SASL logins need (${named}): run ${remedy(refused, user)}.`,
  );
}

/** The commands that let the user's group in. */
function remedy(refused: readonly Need[], { gid }: WorkerUser): string {
  const paths = [...new Set(refused.map(({ path }) => path))];
  const commands = [`chgrp ${groupName(gid) ?? gid} ${paths.join(' ')}`];
  for (const kind of ['x', 'r', 'w'] as const satisfies readonly AccessKind[]) {
    const of = [...new Set(refused.filter((need) => need.kind === kind).map(({ path }) => path))];
    if (of.length > 0) commands.push(`chmod g+${kind} ${of.join(' ')}`);
  }
  return commands.join(' && ');
}

/** The key by which some listener asks for SASL; only then must the host have the library. */
function saslKey({ conf, mode }: Configuration): ConfKey | null {
  if (conf.auth_unix_rw === 'sasl') return 'auth_unix_rw';
  if (mode === 'system' && conf.auth_unix_ro === 'sasl') return 'auth_unix_ro';
  if (conf.listen_tcp && conf.auth_tcp === 'sasl') return 'auth_tcp';
  return conf.listen_tls && conf.auth_tls === 'sasl' ? 'auth_tls' : null;
}
