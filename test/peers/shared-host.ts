import { ModularHost } from './modular-host.js';

let host: Promise<ModularHost> | null = null;

/**
 * One host for all test files of a run: starting seven daemons for each would cost most of the
 * run's time. Whoever uses it names what it makes there after itself, and launches again a daemon
 * that it has ended.
 */
export function sharedHost(): Promise<ModularHost> {
  host ??= ModularHost.start();
  return host;
}

// A hook of the whole run: at this level it belongs to no suite.
after(async () => {
  await (await host)?.stop();
});
