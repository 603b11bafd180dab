import { type ConfigProblem, problemAt } from './errors.js';
import {
  type LogFilter,
  type LogLevelNumber,
  type LogOutput,
  parseLogFilters,
  parseLogOutputs,
} from './log-settings.js';
import type { ConfSettings } from './keys.js';
import type { Environment } from './paths.js';
import { ValueError } from './values.js';

/** What is logged, and where to. */
export interface LogSelection {
  readonly level: LogLevelNumber;
  readonly filters: readonly LogFilter[];
  /** Empty: the default ones. */
  readonly outputs: readonly LogOutput[];
}

/** What LIBVIRT_DEBUG may be. */
const levelWords: Readonly<Record<string, LogLevelNumber>> = {
  1: 1,
  debug: 1,
  2: 2,
  info: 2,
  3: 3,
  warning: 3,
  4: 4,
  error: 4,
};

/**
 * The log settings of virtproxyd.conf, each with the environment's before it, as libvirt's daemons
 * have it. A variable that is empty counts as unset; one that is wrong is a problem, since libvirtd
 * 9.0 does not start with it either.
 */
export function selectLogging(
  conf: ConfSettings,
  env: Environment,
): { readonly logging: LogSelection; readonly problems: readonly ConfigProblem[] } {
  const problems: ConfigProblem[] = [];
  const chosen = <Value>(name: string, parse: (text: string) => Value, otherwise: Value): Value => {
    const text = env[name];
    if (text === undefined || text === '') return otherwise;
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      const place = { file: 'the environment', line: null, key: null };
      problems.push(problemAt('bad-value', place, `${name} ${error.message}.`));
      return otherwise;
    }
  };
  const ofFile = <Value>(parse: (text: string) => Value[], text: string | null): Value[] => {
    try {
      return parse(text ?? '');
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      // Said by the key's own check.
      return [];
    }
  };
  const logging = {
    level: chosen('LIBVIRT_DEBUG', levelOf, (conf.log_level || 3) as LogLevelNumber),
    filters: chosen(
      'LIBVIRT_LOG_FILTERS',
      parseLogFilters,
      ofFile(parseLogFilters, conf.log_filters),
    ),
    outputs: chosen(
      'LIBVIRT_LOG_OUTPUTS',
      (text) => parseLogOutputs(text),
      ofFile((text) => parseLogOutputs(text), conf.log_outputs),
    ),
  };
  return { logging, problems };
}

function levelOf(word: string): LogLevelNumber {
  const level = Object.hasOwn(levelWords, word) ? levelWords[word] : undefined;
  if (level !== undefined) return level;
  throw new ValueError(`is "${word}", which must be 1, 2, 3, 4, debug, info, warning or error`);
}
