import { openLogWriter } from '../logging/writer.js';
import { Primary, type PrimaryOptions } from '../primary/primary.js';

/** Runs the daemon in this process: signals, and the log of all its processes. Resolves when it serves. */
export async function runDaemon(options: PrimaryOptions): Promise<void> {
  process.umask(0o022);
  const writer = openLogWriter(options.configuration.log.format);
  process.on('exit', () => writer.flush());
  const primary = new Primary(options, writer.write);
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
  await primary.start();
}
