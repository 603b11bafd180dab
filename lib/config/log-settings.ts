import { fromDirectory, ValueError } from './values.js';

/** libvirt's levels: 1 debug, 2 info, 3 warning, 4 error. */
export type LogLevelNumber = 1 | 2 | 3 | 4;

/**
 * Messages of components whose name the glob `match` is in are logged from `level` on: see
 * `matches`.
 */
export interface LogFilter {
  readonly level: LogLevelNumber;
  readonly match: string;
}

/** Where messages of `level` and above go. */
export type LogOutput =
  | { readonly level: LogLevelNumber; readonly kind: 'stderr' | 'journald' }
  | { readonly level: LogLevelNumber; readonly kind: 'syslog'; readonly name: string }
  | { readonly level: LogLevelNumber; readonly kind: 'file'; readonly path: string };

/**
 * Parses log_filters: `LEVEL:MATCH` items separated by spaces, of which the first that matches
 * counts. As with libvirtd 9.0 a `+` before MATCH, which once asked for stack traces, and further
 * fields mean nothing. Throws a ValueError that names the bad item.
 */
export function parseLogFilters(text: string): LogFilter[] {
  return items(text).map((item) => {
    const [level, written] = item.split(':');
    // C takes what follows a second colon for nothing, and a plus for a request to log the stack.
    const match = written?.replace(/^\+/, '');
    if (match === undefined || match === '') {
      throw new ValueError(`has the malformed filter "${item}": write LEVEL:MATCH`);
    }
    return { level: logLevel(level, item), match };
  });
}

/**
 * Parses log_outputs: `LEVEL:stderr`, `LEVEL:journald`, `LEVEL:syslog:NAME` and `LEVEL:file:PATH`
 * items separated by spaces. As with C a relative PATH begins at `directory`, and an empty NAME is
 * the program's. Throws a ValueError that names the bad item.
 */
export function parseLogOutputs(text: string, directory = process.cwd()): LogOutput[] {
  return items(text).map((item) => {
    const [first, kind, ...rest] = item.split(':');
    const level = logLevel(first, item);
    const target = rest.join(':');
    if ((kind === 'stderr' || kind === 'journald') && rest.length === 0) return { level, kind };
    if (kind === 'syslog' && rest.length > 0) {
      return { level, kind, name: target || 'virtproxyd' };
    }
    if (kind === 'file' && target !== '') {
      return { level, kind, path: fromDirectory(target, directory) };
    }
    throw new ValueError(
      `has the malformed output "${item}": write LEVEL:stderr, LEVEL:journald, LEVEL:syslog:NAME or LEVEL:file:PATH`,
    );
  });
}

/**
 * Whether a filter's glob is in a name: both its ends are open, `*` is any text and `?` any
 * character.
 */
export function matches(glob: string, name: string): boolean {
  let from = 0;
  return glob.split('*').every((part) => {
    const at = indexOf(name, part, from);
    from = at + part.length;
    return at >= 0;
  });
}

/** The place of the first text from `from` on that is `part`, or -1. */
function indexOf(name: string, part: string, from: number): number {
  for (let at = from; at + part.length <= name.length; at++) {
    if (Array.from(part).every((letter, index) => letter === '?' || letter === name[at + index]))
      return at;
  }
  return -1;
}

/** The text of which `parseLogFilters` makes these filters. */
export function logFiltersText(filters: readonly LogFilter[]): string {
  return filters.map(({ level, match }) => `${level}:${match}`).join(' ');
}

/** The text of which `parseLogOutputs` makes these outputs. */
export function logOutputsText(outputs: readonly LogOutput[]): string {
  return outputs.map((output) => `${output.level}:${logTarget(output)}`).join(' ');
}

/** An output without its level: where it goes. */
export function logTarget(output: LogOutput): string {
  switch (output.kind) {
    case 'stderr':
    case 'journald':
      return output.kind;
    case 'syslog':
      return `syslog:${output.name}`;
    case 'file':
      return `file:${output.path}`;
  }
}

function items(text: string): string[] {
  return text.split(/\s+/).filter((item) => item !== '');
}

function logLevel(text: string | undefined, item: string): LogLevelNumber {
  if (text !== undefined && /^\+?0*[1-4]$/.test(text)) return Number(text) as LogLevelNumber;
  throw new ValueError(
    `has "${item}", which must begin with a level: 1 (debug), 2 (info), 3 (warning) or 4 (error)`,
  );
}
