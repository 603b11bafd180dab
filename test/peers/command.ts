import { parseArgs } from 'node:util';

export interface CommandOptions<Name extends string> {
  /** What `--help` prints. */
  readonly usage: string;
  /** The options, each with a value, and what that is when it is left out. */
  readonly defaults: Readonly<Record<Name, string>>;
  /** Resolves with the exit status. */
  readonly run: (values: Readonly<Record<Name, string>>) => Promise<number>;
}

/**
 * A program of the tests that people run by hand. Whatever fails it is told whole, with the options
 * that it ran with.
 */
export async function command<Name extends string>(options: CommandOptions<Name>): Promise<never> {
  const names = Object.entries<string>(options.defaults);
  const { values } = parseArgs({
    options: {
      ...Object.fromEntries(
        names.map(([name, value]) => [name, { type: 'string' as const, default: value }]),
      ),
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values['help'] === true) {
    process.stdout.write(options.usage);
    process.exit(0);
  }
  const given = values as Record<Name, string>;
  const fail = (error: unknown): never => {
    const words = Object.entries(given).map(([name, value]) => `--${name} ${String(value)}`);
    process.stderr.write(`failed with ${words.join(' ')}\n${stackOf(error)}\n`);
    process.exit(2);
  };
  // Of a timer, or a promise that nobody waits for.
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  return process.exit(await options.run(given).catch(fail));
}

/** An option's value as a number from `least` on. */
export function numberOf(name: string, value: string, least = 0): number {
  if (!(Number(value) >= least))
    throw new Error(`--${name}: '${value}' is no number from ${least} on`);
  return Number(value);
}

/** An error with all that led to it. */
export function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const stack = error.stack ?? String(error);
  return error.cause === undefined ? stack : `${stack}\ncaused by ${stackOf(error.cause)}`;
}
