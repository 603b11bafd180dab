import { parseArgs } from 'node:util';
import { maxIdleSeconds } from '../primary/host/idle-clock.js';

export interface CommandLine {
  readonly help: boolean;
  readonly version: boolean;
  readonly checkConfig: boolean;
  readonly daemon: boolean;
  readonly verbose: boolean;
  /** Null: the mode's default. */
  readonly config: string | null;
  readonly pidFile: string | null;
  /** Seconds; 0: never. */
  readonly timeoutSeconds: number;
}

/** The command line is wrong; the message says how. */
export class UsageError extends Error {
  readonly code = 'USAGE';
}

/** Reads the arguments after the program's name. Throws UsageError. */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { values, positionals } = parsed(args);
  const [leftover] = positionals;
  if (leftover !== undefined) throw new UsageError(`unexpected argument '${leftover}'`);
  return {
    help: values.help ?? false,
    version: values.version ?? false,
    checkConfig: values['check-config'] ?? false,
    daemon: values.daemon ?? false,
    verbose: values.verbose ?? false,
    config: values.config ?? null,
    pidFile: values['pid-file'] ?? null,
    timeoutSeconds: timeoutOf(values.timeout),
  };
}

const options = {
  help: { type: 'boolean', short: 'h' },
  daemon: { type: 'boolean', short: 'd' },
  config: { type: 'string', short: 'f' },
  'pid-file': { type: 'string', short: 'p' },
  timeout: { type: 'string', short: 't' },
  verbose: { type: 'boolean', short: 'v' },
  version: { type: 'boolean', short: 'V' },
  'check-config': { type: 'boolean' },
} as const;

function parsed(args: readonly string[]) {
  const end = args.indexOf('--');
  const before = args.slice(0, end === -1 ? undefined : end).map(spelledOut);
  try {
    return parseArgs({
      args: [...before, ...args.slice(before.length)],
      allowPositionals: true,
      options,
    });
  } catch (error) {
    throw new UsageError((error as Error).message.split('. To specify')[0] ?? '', { cause: error });
  }
}

/**
 * A long option in full where it is abbreviated as getopt_long(3) allows: to a beginning that no
 * other option has.
 */
function spelledOut(argument: string): string {
  const [, beginning, value] = /^--([^=]+)(=.*)?$/s.exec(argument) ?? [];
  if (beginning === undefined || Object.hasOwn(options, beginning)) return argument;
  const [found, ...others] = Object.keys(options).filter((name) => name.startsWith(beginning));
  if (found === undefined) return argument;
  if (others.length > 0) {
    const candidates = [found, ...others].map((name) => `'--${name}'`).join(' ');
    throw new UsageError(`option '--${beginning}' is ambiguous; possibilities: ${candidates}`);
  }
  return `--${found}${value ?? ''}`;
}

function timeoutOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = Number(text);
  if (/^[0-9]+$/.test(text) && seconds <= maxIdleSeconds) return seconds;
  throw new UsageError(
    `Invalid value for timeout: '${text}' is no number of seconds from 0 to ${maxIdleSeconds}`,
  );
}

export const usage = `Usage:
  virtproxyd [OPTION]...

Options:
  -h, --help             print this text and exit
  -v, --verbose          log informational messages too
  -d, --daemon           run in the background; return once connections are accepted
  -t, --timeout SECONDS  end after SECONDS without a client; 0: never
  -f, --config FILE      read this configuration file
  -p, --pid-file FILE    use this PID file
  -V, --version          print the version and exit
      --check-config     check the configuration files and exit

libvirt proxy daemon: see virtproxyd(8).
`;
