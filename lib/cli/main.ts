import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { checkConfiguration, type Inspection } from '../config/check.js';
import { readConfiguration, type ConfigurationOptions } from '../config/configuration.js';
import { ConfigError, type ConfigProblem } from '../config/errors.js';
import { homeDirectory, modeOf } from '../config/paths.js';
import { inheritedSockets } from '../primary/listeners/socket-activation.js';
import { Inheritance } from '../primary/host/succession.js';
import { BackgroundProcess, startInBackground } from './daemonise.js';
import { parseCommandLine, usage, UsageError, type CommandLine } from './options.js';

const say = (text: string): void => {
  process.stdout.write(text);
};
const complain = (text: string): void => {
  process.stderr.write(`virtproxyd: ${text}\n`);
};

/**
 * The program: reads the command line and does what it says. Resolves with the exit status, unless
 * a daemon runs on.
 */
export async function main(args: readonly string[]): Promise<number | null> {
  let line: CommandLine;
  try {
    line = parseCommandLine(args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(error.message);
    process.stderr.write(`Try 'virtproxyd --help' for more information.\n`);
    return 1;
  }
  if (line.help) {
    say(usage);
    return 0;
  }
  if (line.version) {
    say(`virtproxyd (libvirt) ${packageVersion()}\n`);
    return 0;
  }
  const options = configurationOptions(line);
  if (line.checkConfig) {
    const { ok, text } = checkConfiguration(options, await inspection());
    say(text.endsWith('\n') ? text : `${text}\n`);
    return ok ? 0 : 1;
  }
  return serve(line, options);
}

async function serve(line: CommandLine, options: ConfigurationOptions): Promise<number | null> {
  const directory = process.cwd();
  const background = BackgroundProcess.current();
  const inheritance = Inheritance.take(process.env);
  try {
    const configuration = readConfiguration(options);
    if (line.daemon && background === null && inheritance === null) {
      return await startInBackground();
    }
    const pidFile = line.pidFile === null ? null : resolve(line.pidFile);
    if (line.daemon) process.chdir('/');
    // Only now: most of the program's modules are behind it, and a command that just answers needs
    // none of them.
    const { runDaemon } = await import('./run-daemon.js');
    await runDaemon(
      {
        ...line,
        pidFile,
        directory,
        release: packageVersion(),
        activated: inheritedSockets(process.env, process.pid, configuration.conf),
        readConfiguration: () => readConfiguration(options),
      },
      configuration,
      inheritance,
    );
    background?.ready();
    return null;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const known = error instanceof ConfigError || 'code' in error;
    complain(known ? error.message : (error.stack ?? error.message));
    return 1;
  }
}

/** A look at the settings that other rooms understand. */
async function inspection(): Promise<Inspection> {
  const { inspectAccess } = await import('../auth/rights-check.js');
  const { inspectPriority } = await import('../auth/tls-priority-check.js');
  const accounts = await import('../native/accounts.js');
  const { checkWorkerUser } = await import('../primary/host/prerequisites.js');
  return (configuration) => {
    const { problems, warnings } = inspectPriority(configuration);
    return {
      problems: [...problems, ...problemsOf(() => checkWorkerUser(configuration))],
      warnings: [...warnings, ...inspectAccess(configuration, accounts)],
    };
  };
}

/** What keeps `check` from succeeding. */
function problemsOf(check: () => unknown): readonly ConfigProblem[] {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

function configurationOptions({ config }: CommandLine): ConfigurationOptions {
  return {
    mode: modeOf(process.geteuid?.() ?? 0),
    // Absolute, since a daemon leaves the directory it was started in.
    ...(config === null ? {} : { configFile: resolve(config) }),
    directory: process.cwd(),
    env: process.env,
    homeDirectory: homeDirectory(process.env),
  };
}

function packageVersion(): string {
  const { version } = createRequire(import.meta.url)('../../../package.json') as {
    version: string;
  };
  return version;
}
