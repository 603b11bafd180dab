import { ACCESS_KEYS } from './access-keys.js';
import { type ByMode, type KeyRow, SECTIONS, type SettingsOf } from './key-row.js';
import type { Mode } from './paths.js';
import { SERVICE_KEYS } from './service-keys.js';

/**
 * Every key of virtproxyd.conf. The checks, the sample file and the manual page's table are made
 * from these rows; after a change run the command in `test/config/regenerate.ts`.
 */
export const KEYS = { ...ACCESS_KEYS, ...SERVICE_KEYS } as const;

/** The name of a key of virtproxyd.conf. */
export type ConfKey = keyof typeof KEYS;

/**
 * virtproxyd.conf as the daemon uses it: each key with the value of the file, or else its default.
 * null means that a key without a default is not set; an allow-list of `[]` therefore lets nobody
 * in. Ports and permissions are strings as written ("16509", "0770").
 */
export type ConfSettings = SettingsOf<typeof KEYS>;

/** All keys in the order of their sections. */
export const CONF_KEYS: readonly ConfKey[] = Object.keys(SECTIONS).flatMap((section) =>
  (Object.keys(KEYS) as ConfKey[]).filter((key) => KEYS[key].section === section),
);

/** The row of a key that is known, whatever its type. */
export function rowOf(key: ConfKey): KeyRow {
  return KEYS[key];
}

/** Whether a name in virtproxyd.conf is a key. */
export function isConfKey(name: string): name is ConfKey {
  return Object.hasOwn(KEYS, name);
}

/** The default of a row in a mode. */
export function defaultOf<Value extends boolean | number | string | null>(
  value: ByMode<Value>,
  mode: Mode,
): Value {
  return typeof value === 'object' && value !== null ? value[mode] : value;
}
