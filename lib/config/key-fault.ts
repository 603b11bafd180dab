import type { Configuration } from './configuration.js';
import { ConfigError, type Place, problemAt, withPlace } from './errors.js';
import type { ConfKey } from './keys.js';

/** An error for a key whose value is well-formed but cannot be used on this host. */
export function keyFault(
  { paths, lines }: Configuration,
  key: ConfKey,
  sentence: string,
): ConfigError {
  const place = { file: paths.configFile, line: lines[key] ?? null, key };
  return new ConfigError([problemAt('bad-value', place, `${key}: ${sentence}`)]);
}

/** `FILE:LINE: KEY` for error messages; null when virtproxyd.conf does not set the key. */
export function placeOfKey({ paths, lines }: Configuration, key: ConfKey): string | null {
  const line = lines[key];
  return line === undefined ? null : withPlace({ file: paths.configFile, line, key }, key);
}

/** The same as `keyFault` for a key of the cluster's ini file. */
export function clusterKeyFault(
  configuration: Configuration,
  section: string,
  key: string,
  sentence: string,
): ConfigError {
  const place = clusterPlace(configuration, section, key);
  return new ConfigError([problemAt('bad-value', place, `[${section}] ${key}: ${sentence}`)]);
}

/** The same as `placeOfKey` for a key of the cluster's ini file. */
export function placeOfClusterKey(
  configuration: Configuration,
  section: string,
  key: string,
): string | null {
  const place = clusterPlace(configuration, section, key);
  return place.line === null ? null : withPlace(place, `[${section}] ${key}`);
}

function clusterPlace({ paths, clusterLines }: Configuration, section: string, key: string): Place {
  return { file: paths.clusterFile, line: clusterLines[`${section}.${key}`] ?? null, key };
}
