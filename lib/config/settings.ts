import {
  type ConfigErrorCode,
  type ConfigProblem,
  type Place,
  problemAt,
  withPlace,
} from './errors.js';
import type { ConfEntry, ConfValue } from './grammar.js';
import type { KeyRow } from './key-row.js';
import {
  CONF_KEYS,
  type ConfKey,
  type ConfSettings,
  defaultOf,
  isConfKey,
  KEYS,
  rowOf,
} from './keys.js';
import type { Mode } from './paths.js';
import { ValueError } from './values.js';

/** virtproxyd.conf after every single key has been checked. */
export interface CheckedSettings {
  /** Keys with a problem, in force or not, have their default here. */
  readonly conf: ConfSettings;
  /** The keys that the file sets, with their lines. */
  readonly lines: ReadonlyMap<ConfKey, number>;
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
}

const RANGES = { uint: [0, 4_294_967_295], int: [-2_147_483_648, 2_147_483_647] } as const;

const EXPECTED = {
  bool: 'a bool (0 or 1)',
  uint: 'an unsigned integer',
  int: 'an integer',
  string: 'a string in quotes',
  port: 'a string in quotes',
  enum: 'a string in quotes',
  'string-list': 'a list of strings such as [ "one", "two" ]',
} as const;

class KeyFault extends Error {
  readonly code: ConfigErrorCode;
  /** `in-use`: C does not notice it while the key has no effect. */
  readonly found: 'always' | 'in-use';

  constructor(code: ConfigErrorCode, sentence: string, found: 'always' | 'in-use' = 'always') {
    super(sentence);
    this.code = code;
    this.found = found;
  }
}

/**
 * Turns the statements of virtproxyd.conf into settings, defaults included, and checks each key on
 * its own. As with the C daemon the first statement counts where a key is set twice. Relative paths
 * begin at `directory`.
 */
export function checkEntries(
  entries: readonly ConfEntry[],
  file: string,
  mode: Mode,
  directory = process.cwd(),
): CheckedSettings {
  const values: Partial<Record<ConfKey, unknown>> = {};
  const lines = new Map<ConfKey, number>();
  const problems: ConfigProblem[] = [];
  const warnings: string[] = [];

  for (const { key, value, line } of entries) {
    const place: Place = { file, line, key };
    if (!isConfKey(key)) {
      warnings.push(withPlace(place, `The unknown key ${key} is ignored.`));
      continue;
    }
    const first = lines.get(key);
    if (first !== undefined) {
      warnings.push(
        withPlace(place, `${key} is set a second time; the value of line ${first} counts.`),
      );
      continue;
    }
    lines.set(key, line);
    const row = rowOf(key);
    if (row.ignored !== undefined) {
      warnings.push(withPlace(place, `${key} has no effect on virtproxyd: ${row.ignored}.`));
    }
    if (row.unread) continue;
    try {
      const { used, caveat } = convert(key, row, value, directory);
      values[key] = used;
      if (caveat !== null) warnings.push(withPlace(place, `${key} ${caveat}.`));
    } catch (error) {
      if (!(error instanceof KeyFault)) throw error;
      const problem = problemAt(error.code, place, error.message);
      const { needs } = row;
      problems.push(error.found === 'in-use' && needs ? { ...problem, needs } : problem);
    }
  }
  return { conf: withDefaults(values, mode), lines, problems, warnings };
}

function withDefaults(values: Partial<Record<ConfKey, unknown>>, mode: Mode): ConfSettings {
  const all: Partial<Record<ConfKey, unknown>> = {};
  for (const key of CONF_KEYS) all[key] = values[key] ?? defaultOf(rowOf(key).default, mode);
  if (values.unix_sock_rw_perms === undefined) {
    const { system, session } = KEYS.unix_sock_rw_perms.default;
    all.unix_sock_rw_perms = all.auth_unix_rw === 'polkit' ? system : session;
  }
  // The table's types say what each row's default and conversion give.
  return all as ConfSettings;
}

/** What a row makes of a value whose type `typed` has ensured. */
interface Reading {
  readonly read?: (written: unknown, directory: string) => unknown;
  readonly caveat?: (written: unknown, value: unknown) => string | null;
}

function convert(key: ConfKey, row: KeyRow, statement: ConfValue, directory: string) {
  const written = typed(key, row, statement);
  const { read, caveat } = row as Reading;
  try {
    const used = read === undefined ? written : read(written, directory);
    return { used, caveat: caveat?.(written, used) ?? null };
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    throw new KeyFault('bad-value', `${key} ${error.message}.`, 'in-use');
  }
}

function typed(key: ConfKey, row: KeyRow, value: ConfValue): unknown {
  switch (row.type) {
    case 'bool':
      if (typeof value !== 'number' || value < 0) break;
      if (value > 1) throw new KeyFault('bad-value', `${key} must be 0 or 1, not ${value}.`);
      return value === 1;
    case 'uint':
    case 'int': {
      if (typeof value !== 'number' || (row.type === 'uint' && value < 0)) break;
      const [least, most] = RANGES[row.type];
      const [min, max] = [row.min ?? least, row.max ?? most];
      if (value >= min && value <= max) return value;
      throw new KeyFault('bad-value', `${key} must be from ${min} to ${max}, not ${value}.`);
    }
    case 'string':
    case 'port':
      if (typeof value !== 'string') break;
      return value;
    case 'enum': {
      if (typeof value !== 'string') break;
      if (row.values.includes(value)) return value;
      const words = row.values.map((word) => `"${word}"`).join(' or ');
      const { unfit = {} } = row;
      const reason = Object.hasOwn(unfit, value) ? unfit[value] : undefined;
      const sentence = `${key} must be ${words}, not "${value}"`;
      if (reason === undefined) throw new KeyFault('bad-value', `${sentence}.`);
      throw new KeyFault('bad-value', `${sentence} (${reason}).`, 'in-use');
    }
    case 'string-list':
      if (typeof value !== 'object' || value.some((item) => typeof item !== 'string')) break;
      return value;
  }
  const expected = `${EXPECTED[row.type]} is expected for key ${key}`;
  throw new KeyFault('wrong-type', `${expected}, but the value is ${describe(value)}.`);
}

function describe(value: ConfValue): string {
  if (typeof value === 'number') return `the number ${value}`;
  if (typeof value === 'string') return `the string "${value}"`;
  return value.some((item) => typeof item !== 'string')
    ? 'a list that holds other things than strings'
    : 'a list';
}
