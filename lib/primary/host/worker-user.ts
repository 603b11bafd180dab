import { createRequire } from 'node:module';
import { openSslConfiguration } from '../../auth/session-tickets.js';
import type { Configuration } from '../../config/configuration.js';
import type { ConfigError } from '../../config/errors.js';
import { clusterKeyFault } from '../../config/key-fault.js';
import type { WorkerUser } from '../../control/workers.js';
import { errorText } from '../../error-text.js';
import { findUser, type Account } from '../../native/accounts.js';
import { lackingCapabilities } from '../../native/privileges.js';
import { workerProgram } from '../../control/worker-program.js';
import { needsFor, refusedTo, type Need } from './access.js';

/** To start processes of another user, and to end them. */
const capabilities = ['CAP_SETUID', 'CAP_SETGID', 'CAP_KILL'] as const;

/**
 * Whom workers run as: worker_user in system mode; null is the user of the primary. Throws
 * ConfigError when they cannot.
 */
export function workerUserOf(configuration: Configuration): WorkerUser | null {
  const { mode, cluster } = configuration;
  const { worker_user: name } = cluster;
  if (mode === 'session' || name === null) return null;
  const fault = (sentence: string): ConfigError =>
    clusterKeyFault(configuration, 'cluster', 'worker_user', sentence);
  try {
    const { id: uid, gid } = unprivileged(name, findUser(name));
    const lacking = lackingCapabilities(capabilities);
    if (lacking.length > 0) {
      throw new Error(
        `The daemon cannot start and end processes of '${name}': it lacks ${lacking.join(' and ')}.`,
      );
    }
    const [obstacle] = refusedTo({ uid, gid }, programNeeds());
    if (obstacle !== undefined) throw new Error(describe(obstacle, name));
    return { uid, gid };
  } catch (error) {
    throw fault(errorText(error));
  }
}

/** Throws for a user that is none, or whom workers may as well not be. */
function unprivileged(name: string, user: Account | null): Account {
  if (user === null) throw new Error(`There is no user '${name}' on this host.`);
  if (user.id === 0) {
    throw new Error(
      `'${name}' is root, whom workers run as without this key: name a user that is there for them alone, or remove the line.`,
    );
  }
  if (user.gid === 0) {
    throw new Error(
      `The primary group of '${name}' is that of root: name a user that is there for the workers alone.`,
    );
  }
  return user;
}

/** Node.js, the worker's program and what it cannot load without. */
function programNeeds(): Need[] {
  const koffi = createRequire(import.meta.url).resolve('koffi');
  const readable = [workerProgram, openSslConfiguration, koffi];
  return [...needsFor(process.execPath, 'x'), ...readable.flatMap((file) => needsFor(file, 'r'))];
}

function describe({ kind, path }: Need, name: string): string {
  const what = kind === 'x' ? 'enter or execute' : 'read';
  return `'${name}' may not ${what} ${path}, which the program of the workers needs: install it where everybody can read it.`;
}
