import type { Configuration } from './configuration.js';
import { ConfigError, problemAt, withPlace } from './errors.js';
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
