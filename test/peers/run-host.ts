/**
 * Starts a modular host and keeps it until SIGINT or SIGTERM: `node dist/test/peers/run-host.js
 * [--lxc] [DIRECTORY]`. Prints the directory when every daemon accepts connections; `routes.ini` in
 * it leads a proxy there. The directory is removed at the end.
 */
import { parseArgs } from 'node:util';
import { drivers } from './daemon.js';
import { ModularHost, whyNoHost } from './modular-host.js';

const reason = whyNoHost();
if (reason !== null) {
  process.stderr.write(`A modular host cannot run here: it ${reason}.\n`);
  process.exitCode = 1;
} else {
  const ended = new Promise((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  // Daemons alone do not keep this process.
  const alive = setInterval(() => undefined, 60_000);
  const { values, positionals } = parseArgs({
    options: { lxc: { type: 'boolean' } },
    allowPositionals: true,
  });
  const [directory] = positionals;
  const host = await ModularHost.start({
    drivers: values.lxc ? [...drivers, 'lxc'] : drivers,
    ...(directory !== undefined && { directory }),
  });
  process.stdout.write(`${host.directory}\n`);
  await ended;
  await host.stop();
  clearInterval(alive);
}
