import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type ClusterFile, parseClusterIni } from './cluster-ini.js';
import {
  ConfigError,
  type ConfigProblem,
  dormantWarning,
  isInForce,
  problemAt,
  withPlace,
} from './errors.js';
import { parseConf } from './grammar.js';
import type { ConfKey, ConfSettings } from './keys.js';
import {
  CLUSTER_FILE_NAME,
  defaultPaths,
  type Environment,
  type Mode,
  type Paths,
} from './paths.js';
import { type LogSelection, selectLogging } from './log-environment.js';
import { findConflicts, findDangers } from './rules.js';
import { checkEntries } from './settings.js';

/** Which configuration to read. */
export interface ConfigurationOptions {
  readonly mode: Mode;
  /** From -f; relative to the current directory. It must exist, the default file need not. */
  readonly configFile?: string | undefined;
  /**
   * Overrides the file beside virtproxyd.conf; relative to the current directory. It must exist.
   */
  readonly clusterFile?: string | undefined;
  /** Where relative paths in virtproxyd.conf begin; the current directory unless given. */
  readonly directory?: string;
  readonly env: Environment;
  /** Null: the user has none. */
  readonly homeDirectory: string | null;
}

/** All settings of the daemon. Plain data, so that it can be sent to worker processes as JSON. */
export interface Configuration extends Pick<
  ClusterFile,
  'cluster' | 'routes' | 'metrics' | 'log' | 'access'
> {
  readonly mode: Mode;
  /** The virtproxyd.conf that was read, or null if there is none. */
  readonly confFile: string | null;
  /** The cluster's ini file that was read, or null if there is none. */
  readonly clusterFile: string | null;
  readonly conf: ConfSettings;
  /** The log keys of `conf` and what the environment says in their place. */
  readonly logging: LogSelection;
  /** The keys that virtproxyd.conf sets, with their lines. */
  readonly lines: Readonly<Partial<Record<ConfKey, number>>>;
  /** The keys that the cluster's ini file sets, as `SECTION.KEY`, with their lines. */
  readonly clusterLines: Readonly<Record<string, number>>;
  /** With unix_sock_dir as `runDirectory` if that key is set, and the files in use. */
  readonly paths: Paths;
  /**
   * Mistakes that are none while a listener is off, and keep the daemon from starting when it is
   * on.
   */
  readonly dormant: readonly ConfigProblem[];
  /** Sentences for the administrator, each with file and, where it has one, line. */
  readonly warnings: readonly string[];
}

/** A configuration together with everything that is wrong with it. */
export interface InspectedConfiguration {
  readonly configuration: Configuration;
  readonly problems: readonly ConfigProblem[];
}

/** Reads and checks both files. Throws a ConfigError that holds every problem found in them. */
export function readConfiguration(options: ConfigurationOptions): Configuration {
  const { configuration, problems } = inspectConfiguration(options);
  const [first, ...others] = problems;
  if (first !== undefined) throw new ConfigError([first, ...others]);
  return configuration;
}

/** Reads and checks both files; settings with a problem have their defaults. */
export function inspectConfiguration(options: ConfigurationOptions): InspectedConfiguration {
  const { mode, env, homeDirectory } = options;
  const defaults = defaultPaths(mode, env, homeDirectory);
  const configFile = resolve(options.configFile ?? defaults.configFile);
  const clusterFile = resolve(options.clusterFile ?? join(dirname(configFile), CLUSTER_FILE_NAME));
  const problems: ConfigProblem[] = [];
  const read = (file: string, given: boolean): string | null => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      const { code = 'unknown error' } = error as NodeJS.ErrnoException;
      if (given || code !== 'ENOENT') problems.push(unreadable(file, code));
      return null;
    }
  };

  const confText = read(configFile, options.configFile !== undefined);
  const statements = parseConf(confText ?? '', configFile);
  const checked = checkEntries(statements.entries, configFile, mode, options.directory);
  const isWhole = statements.problems.length === 0;
  // A statement that could not be read may be the very one that a rule misses.
  const conflicts = isWhole ? findConflicts(checked, configFile, mode) : [];
  const found = [...statements.problems, ...checked.problems, ...conflicts];
  const dormant = found.filter((problem) => !isInForce(problem, checked.conf));
  problems.push(...found.filter((problem) => !dormant.includes(problem)));

  const clusterText = read(clusterFile, options.clusterFile !== undefined);
  const cluster = parseClusterIni(clusterText ?? '', clusterFile);
  problems.push(...cluster.problems);

  const { logging, problems: logProblems } = selectLogging(checked.conf, env);
  problems.push(...logProblems);

  const configuration: Configuration = {
    mode,
    confFile: confText === null ? null : configFile,
    clusterFile: clusterText === null ? null : clusterFile,
    conf: checked.conf,
    logging,
    lines: Object.fromEntries(checked.lines),
    clusterLines: cluster.lines,
    cluster: cluster.cluster,
    routes: cluster.routes,
    metrics: cluster.metrics,
    log: cluster.log,
    access: cluster.access,
    paths: {
      ...defaults,
      configFile,
      clusterFile,
      runDirectory: checked.conf.unix_sock_dir ?? defaults.runDirectory,
    },
    dormant,
    warnings: [
      ...checked.warnings,
      ...dormant.map(dormantWarning),
      ...findDangers(checked, configFile, mode, cluster.access),
      ...unheeded(cluster, clusterFile, mode),
      ...cluster.warnings,
    ],
  };
  return { configuration, problems };
}

/** Warns of what only the system's daemon heeds. */
function unheeded({ cluster, lines }: ClusterFile, file: string, mode: Mode): string[] {
  const key = 'worker_user';
  if (mode === 'system' || cluster[key] === null) return [];
  const place = { file, line: lines[`cluster.${key}`] ?? null, key };
  return [withPlace(place, `${key} has no effect in session mode.`)];
}

function unreadable(file: string, code: string): ConfigProblem {
  const reason =
    {
      ENOENT: 'there is no such file',
      EACCES: 'permission is denied',
      EISDIR: 'it is a directory',
      ENOTDIR: 'a part of its path is not a directory',
    }[code] ?? code;
  const sentence = `The configuration file cannot be read: ${reason}.`;
  return problemAt('unreadable', { file, line: null, key: null }, sentence);
}
