import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readConfiguration, type Configuration } from '../../lib/config/configuration.js';
import type { Mode } from '../../lib/config/paths.js';

/**
 * Reads a virtproxyd.conf with this text, and a cluster's file, from a directory where all of it
 * belongs.
 */
export function configurationIn(
  directory: string,
  conf = '',
  { mode = 'session', cluster = '' }: { readonly mode?: Mode; readonly cluster?: string } = {},
): Configuration {
  const configFile = join(directory, 'virtproxyd.conf');
  writeFileSync(configFile, conf);
  writeFileSync(join(directory, 'virtproxyd-cluster.ini'), cluster);
  const env = { XDG_CONFIG_HOME: directory, XDG_RUNTIME_DIR: directory };
  return readConfiguration({ mode, configFile, env, homeDirectory: directory });
}
