import {
  type Configuration,
  type ConfigurationOptions,
  inspectConfiguration,
} from './configuration.js';
import type { ConfigProblem } from './errors.js';
import { homelessness } from './paths.js';

/** The answer to `--check-config`. */
export interface ConfigurationCheck {
  /** Several lines, the last one with its line feed. */
  readonly text: string;
  /** Whether the daemon would start with this configuration. Warnings do not count. */
  readonly ok: boolean;
}

/** A look at settings that this room does not understand. */
export type Inspection = (configuration: Configuration) => {
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
};

/** Reads and checks both configuration files as at start-up, without changing anything. */
export function checkConfiguration(
  options: ConfigurationOptions,
  inspect: Inspection = () => ({ problems: [], warnings: [] }),
): ConfigurationCheck {
  const { configuration, problems: found } = inspectConfiguration(options);
  const { confFile, clusterFile, paths } = configuration;
  const further = inspect(configuration);
  const problems = [...found, ...further.problems];
  const warnings = [...configuration.warnings, ...further.warnings];
  const ok = problems.length === 0;
  const unreadable = new Set(
    problems.filter(({ code }) => code === 'unreadable').map(({ file }) => file),
  );
  const absent = [
    ...(confFile === null ? [paths.configFile] : []),
    ...(clusterFile === null ? [paths.clusterFile] : []),
  ].filter((file) => !unreadable.has(file));

  const homeless = homelessness(paths, paths.runDirectory).trim();

  const lines = [
    ...problems.map(({ message }) => `error: ${message}`),
    ...warnings.map((warning) => `warning: ${warning}`),
    ...absent.map((file) => `${file} does not exist; its defaults are used.`),
    ...(homeless === '' ? [] : [`There is no place for the sockets yet. ${homeless}`]),
    ok
      ? `The configuration is valid${withCount(warnings.length, 'warning', ', with ')}.`
      : `virtproxyd cannot start with this configuration: ${withCount(problems.length, 'error')}${withCount(warnings.length, 'warning', ', ')}.`,
  ];
  return { text: lines.map((line) => `${line}\n`).join(''), ok };
}

function withCount(count: number, noun: string, before = ''): string {
  if (count === 0) return '';
  return `${before}${count} ${noun}${count === 1 ? '' : 's'}`;
}
