import type { Configuration } from '../config/configuration.js';
import { LogControl } from '../logging/log-control.js';
import { Logger } from '../logging/logger.js';
import type { Inheritance } from '../primary/host/succession.js';
import { releaseAfterStart } from '../native/start-pages.js';
import { Primary } from '../primary/primary.js';
import type { PrimaryOptions } from '../primary/primary-options.js';
import { ServiceManager } from '../primary/host/service-manager.js';
import { leaveTerminal } from './daemonise.js';

/**
 * Runs the daemon in this process: its signals, and the log of all its processes. Resolves when it
 * serves. Rejects when it cannot start.
 */
export async function runDaemon(
  options: PrimaryOptions,
  configuration: Configuration,
  inheritance: Inheritance | null,
): Promise<void> {
  process.umask(0o022);
  const { daemon, verbose } = options;
  const logging = new LogControl(configuration, { daemon, verbose, env: process.env });
  process.on('exit', () => logging.flush());
  const debug = new Logger('daemon.service-manager', logging.threshold, logging.sink);
  const serviceManager = new ServiceManager(process.env, (line) => debug.debug(line));
  const primary = new Primary(options, configuration, serviceManager, logging);
  let stopping = false;
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping) {
        primary.abandon();
        process.exit(0);
      }
      stopping = true;
      primary.stop(signal);
    });
  }
  process.on('SIGHUP', () => {
    // At once, and whatever becomes of the reload: a log's rotation relies on it.
    logging.reopen();
    primary.reload();
  });
  process.on('SIGUSR2', () => primary.upgrade());
  await primary.start(inheritance);
  releaseAfterStart();
  if (!daemon || !primary.isServing) return;
  logging.flush();
  leaveTerminal();
  // An output to the standard error must let go of the terminal too.
  logging.reopen();
}
