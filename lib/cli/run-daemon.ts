import type { Configuration } from '../config/configuration.js';
import { openLogWriter } from '../logging/writer.js';
import type { Inheritance } from '../primary/succession.js';
import { Primary, type PrimaryOptions } from '../primary/primary.js';

/**
 * Runs the daemon in this process: its signals, and the log of all its processes. Resolves when it serves. Rejects when it
 * cannot start.
 */
export async function runDaemon(
  options: PrimaryOptions,
  configuration: Configuration,
  inheritance: Inheritance | null,
): Promise<void> {
  process.umask(0o022);
  const writer = openLogWriter(configuration.log.format);
  process.on('exit', () => writer.flush());
  const primary = new Primary(options, configuration, writer.write);
  let stopping = false;
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping) {
        primary.abandon();
        process.exit(0);
      }
      stopping = true;
      void primary.stop(signal).then(() => process.exit(0));
    });
  }
  process.on('SIGHUP', () => void primary.reload());
  process.on('SIGUSR2', () => {
    void primary.upgrade().then((done) => {
      if (done) process.exit(0);
    });
  });
  await primary.start(inheritance);
}
