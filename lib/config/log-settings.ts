import { isAbsolute } from 'node:path';
import { ValueError } from './values.js';

/** libvirt's levels: 1 debug, 2 info, 3 warning, 4 error. */
export type LogLevelNumber = 1 | 2 | 3 | 4;

/** Messages of components whose name contains `match` are logged from `level` on. */
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
 * Parses log_filters: `LEVEL:MATCH` items separated by spaces, of which the first that matches counts.
 * Throws a ValueError that names the bad item.
 */
export function parseLogFilters(text: string): LogFilter[] {
  return items(text).map((item) => {
    const [level, match, ...rest] = item.split(':');
    if (match === undefined || match === '' || rest.length > 0) {
      throw new ValueError(`has the malformed filter "${item}": write LEVEL:MATCH`);
    }
    return { level: logLevel(level, item), match };
  });
}

/**
 * Parses log_outputs: `LEVEL:stderr`, `LEVEL:journald`, `LEVEL:syslog:NAME` and `LEVEL:file:PATH` items separated by
 * spaces. Throws a ValueError that names the bad item.
 */
export function parseLogOutputs(text: string): LogOutput[] {
  return items(text).map((item) => {
    const [first, kind, ...rest] = item.split(':');
    const level = logLevel(first, item);
    const target = rest.join(':');
    if ((kind === 'stderr' || kind === 'journald') && rest.length === 0) return { level, kind };
    if (kind === 'syslog' && target !== '') return { level, kind, name: target };
    if (kind === 'file' && isAbsolute(target)) return { level, kind, path: target };
    if (kind === 'file') {
      throw new ValueError(`has the output "${item}", which needs the absolute path of a file`);
    }
    throw new ValueError(
      `has the malformed output "${item}": write LEVEL:stderr, LEVEL:journald, LEVEL:syslog:NAME or LEVEL:file:PATH`,
    );
  });
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
  if (text === '1' || text === '2' || text === '3' || text === '4')
    return Number(text) as LogLevelNumber;
  throw new ValueError(
    `has "${item}", which must begin with a level: 1 (debug), 2 (info), 3 (warning) or 4 (error)`,
  );
}
