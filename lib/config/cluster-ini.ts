import ini from 'ini';
import {
  type AccessSettings,
  CLUSTER_KEYS,
  type ClusterRow,
  type ClusterSettings,
  isList,
  type LogSettings,
  type MetricsSettings,
  ROUTES,
  STRICT_SECTIONS,
} from './cluster-keys.js';
import { type ConfigProblem, type Place, problemAt, withPlace } from './errors.js';
import { ValueError } from './values.js';

/** What the cluster's ini file says, defaults included. */
export interface ClusterFile {
  readonly cluster: ClusterSettings;
  /**
   * Socket paths by driver, and `default`. A driver's name comes from clients, so look it up with
   * Object.hasOwn: `constructor` could be one.
   */
  readonly routes: Record<string, string>;
  readonly metrics: MetricsSettings;
  readonly log: LogSettings;
  readonly access: AccessSettings;
  /** The lines of the keys that are set, by `SECTION.KEY`; of a list its first. */
  readonly lines: Readonly<Record<string, number>>;
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
}

type Value = ReturnType<ClusterRow['parse']>;

/** What a line assigns to, and where the value is to be found. */
interface Assignment extends Place {
  readonly key: string;
  readonly section: string;
  readonly parse: Reader['parse'];
  /** One of a list's values; null for a key that has but one, which the ini package finds. */
  readonly element: string | null;
}

type KeyPlace = Place & { readonly key: string; readonly line: number };

/** What of a row it takes to read a value. */
type Reader = Pick<ClusterRow, 'parse'>;

const route: Reader = { parse: ROUTES.parse };

type Values = Partial<Record<string, Partial<Record<string, Value>>>>;

const TABLE: Readonly<Record<string, Readonly<Record<string, ClusterRow>>>> = CLUSTER_KEYS;

/** Parses the cluster's ini file. An absent file is the empty text. */
export function parseClusterIni(text: string, file: string): ClusterFile {
  const { assignments, known, lines, problems, warnings } = new Scanner(text, file);
  const parsed = ini.parse(known.join('\n')) as Partial<Record<string, Record<string, unknown>>>;
  const values: Values = {};
  for (const { section, key, parse, element, ...place } of assignments) {
    const own = (values[section] ??= {});
    try {
      // ini turns true, false, null and quoted numbers into other types; as text they are what was
      // written.
      const value = parse(element ?? String(parsed[section]?.[key]));
      own[key] = typeof value === 'object' ? [...listOf(own[key]), ...value] : value;
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problems.push(problemAt('bad-value', { ...place, key }, `${key} ${error.message}.`));
    }
  }
  const cluster = withDefaults('cluster', values) as ClusterSettings;
  problems.push(...workersConflict(cluster, problems, lines, file));
  return {
    cluster,
    routes: (values[ROUTES.section] ?? {}) as Record<string, string>,
    metrics: withDefaults('metrics', values) as MetricsSettings,
    log: withDefaults('log', values) as LogSettings,
    access: withDefaults('access', values) as AccessSettings,
    lines: Object.fromEntries(lines),
    problems,
    warnings,
  };
}

/** What is wrong with the range of workers, if each of its ends is right. */
function workersConflict(
  { min_workers: least, workers: most }: ClusterSettings,
  found: readonly ConfigProblem[],
  lines: ReadonlyMap<string, number>,
  file: string,
): ConfigProblem[] {
  const isFaulty = found.some(({ key }) => key === 'workers' || key === 'min_workers');
  if (least <= most || isFaulty) return [];
  const key = lines.has('cluster.min_workers') ? 'min_workers' : 'workers';
  const place = { file, line: lines.get(`cluster.${key}`) ?? null, key };
  const sentence = `min_workers (${least}) must not be above workers (${most}): raise the one or lower the other.`;
  return [problemAt('conflict', place, sentence)];
}

const listOf = (value: Value | undefined): readonly string[] =>
  typeof value === 'object' ? value : [];

function withDefaults(
  section: keyof typeof CLUSTER_KEYS,
  values: Values,
): Record<string, Value | null> {
  return Object.fromEntries(
    Object.entries(TABLE[section] ?? {}).map(([key, row]) => [
      key,
      values[section]?.[key] ?? defaultOf(row),
    ]),
  );
}

function defaultOf(row: ClusterRow): Value | null {
  if (isList(row)) return [];
  return row.default === null ? null : row.parse(row.default);
}

/**
 * Finds the line of every key, and the text that may be given to the ini package: the lines of
 * known sections and keys only. The package would silently drop what it does not understand, and
 * would let `[cluster.workers]`, `workers[]` or `__proto__` replace other values.
 */
class Scanner {
  readonly assignments: Assignment[] = [];
  readonly problems: ConfigProblem[] = [];
  readonly warnings: string[] = [];
  readonly known: string[] = [];
  /** The first line of each key, by `SECTION.KEY`. */
  readonly lines = new Map<string, number>();
  #section: string | null = null;
  #skipping = false;

  constructor(text: string, file: string) {
    for (const [index, raw] of text.split(/\r\n|\n|\r/).entries()) {
      const line = raw.trim();
      const place = { file, line: index + 1, key: null };
      if (line === '' || /^[;#]/.test(line)) continue;
      if (line.startsWith('[')) this.#readSection(line, place);
      else if (!this.#skipping) this.#readAssignment(line, place);
    }
  }

  #readSection(line: string, place: Place): void {
    const name = /^\[([^[\]]*)\]$/.exec(line)?.[1]?.trim();
    this.#section = name !== undefined && isSection(name) ? name : null;
    this.#skipping = this.#section === null;
    if (name === undefined) {
      const sentence = 'A section is written [NAME] on a line of its own.';
      this.problems.push(problemAt('syntax', place, sentence));
    } else if (this.#skipping) {
      this.warnings.push(withPlace(place, `The unknown section [${name}] is ignored.`));
    } else {
      this.known.push(`[${name}]`);
    }
  }

  #readAssignment(line: string, { file, line: number }: Place & { line: number }): void {
    const [name = '', ...rest] = line.split('=');
    const key = name.trim();
    const section = this.#section;
    const place = { file, line: number, key };
    if (key === '' || rest.length === 0) {
      const sentence = 'expecting an assignment: write KEY = VALUE';
      this.problems.push(problemAt('syntax', place, sentence));
      return;
    }
    if (section === null) {
      this.warnings.push(withPlace(place, `${key} stands before any section and is ignored.`));
      return;
    }
    const row = rowOf(section, key) ?? listRowOf(section, key);
    if (row === undefined) this.#readUnknown(section, place);
    else if (isList(row)) this.#readElement(section, row, line, place);
    else this.#readSingle(section, row, line, place);
  }

  #readSingle(section: string, { parse }: Reader, line: string, place: KeyPlace): void {
    const { key } = place;
    const first = this.lines.get(`${section}.${key}`);
    if (first !== undefined) {
      const sentence = `${key} is set a second time; the value of line ${first} counts.`;
      this.warnings.push(withPlace(place, sentence));
      return;
    }
    this.lines.set(`${section}.${key}`, place.line);
    this.known.push(line);
    this.assignments.push({ ...place, section, parse, element: null });
  }

  #readElement(section: string, { parse }: Reader, line: string, written: KeyPlace): void {
    const key = written.key.replace(/\[\]$/, '');
    const place = { ...written, key };
    const element = unquoted(line.slice(line.indexOf('=') + 1).trim());
    const isFirst = !this.lines.has(`${section}.${key}`);
    if (!isFirst && written.key === key) {
      const sentence = `${key} is set a second time: write each value of a list as ${key}[] = VALUE.`;
      this.problems.push(problemAt('bad-value', place, sentence));
    } else if (element === null) {
      const sentence = `${key} has a value with ; or # or odd quotes: put it into single quotes, and comments on lines of their own.`;
      this.problems.push(problemAt('bad-value', place, sentence));
    } else {
      if (isFirst) this.lines.set(`${section}.${key}`, place.line);
      this.assignments.push({ ...place, section, parse, element });
    }
  }

  #readUnknown(section: string, place: KeyPlace): void {
    const { key } = place;
    if (section === ROUTES.section) {
      const sentence = `"${key}" is not the name of a driver: write one such as qemu, or default.`;
      this.problems.push(problemAt('bad-value', place, sentence));
    } else if (STRICT_SECTIONS.has(section)) {
      const known = Object.keys(TABLE[section] ?? {}).join(', ');
      const sentence = `[${section}] has no key ${key}, but only ${known}.`;
      this.problems.push(problemAt('bad-value', place, sentence));
    } else {
      this.warnings.push(withPlace(place, `The unknown key ${key} in [${section}] is ignored.`));
    }
  }
}

function isSection(name: string): boolean {
  return name === ROUTES.section || Object.hasOwn(TABLE, name);
}

/**
 * A list's value as it is written, without its quotes; null when it cannot be told what is value
 * and what comment.
 */
function unquoted(value: string): string | null {
  if (/^'.*'$/.test(value)) return value.slice(1, -1);
  if (!value.startsWith('"')) return /[;#]/.test(value) ? null : value;
  try {
    const text: unknown = JSON.parse(value);
    return typeof text === 'string' ? text : null;
  } catch {
    return null;
  }
}

function rowOf(section: string, key: string): Reader | undefined {
  if (section === ROUTES.section) return ROUTES.driver.test(key) ? route : undefined;
  const rows = TABLE[section];
  return rows !== undefined && Object.hasOwn(rows, key) ? rows[key] : undefined;
}

/** `KEY[]` is one more value of the list `KEY`. */
function listRowOf(section: string, written: string): Reader | undefined {
  const row = written.endsWith('[]') ? rowOf(section, written.slice(0, -2)) : undefined;
  return row !== undefined && isList(row) ? row : undefined;
}
