import ini from 'ini';
import {
  CLUSTER_KEYS,
  type ClusterRow,
  type ClusterSettings,
  type LogSettings,
  type MetricsSettings,
  ROUTES,
} from './cluster-keys.js';
import { type ConfigProblem, type Place, problemAt, withPlace } from './errors.js';
import { ValueError } from './values.js';

/** What the cluster's ini file says, defaults included. */
export interface ClusterFile {
  readonly cluster: ClusterSettings;
  /**
   * Socket paths by driver, and `default`. A driver's name comes from clients, so look it up with Object.hasOwn:
   * `constructor` could be one.
   */
  readonly routes: Record<string, string>;
  readonly metrics: MetricsSettings;
  readonly log: LogSettings;
  /** The lines of the keys that are set, by `SECTION.KEY`. */
  readonly lines: Readonly<Record<string, number>>;
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
}

type Parse = ClusterRow['parse'];

interface Assignment extends Place {
  readonly key: string;
  readonly section: string;
  readonly parse: Parse;
}

type Values = Partial<Record<string, Partial<Record<string, number | string>>>>;

const TABLE: Readonly<Record<string, Readonly<Record<string, ClusterRow>>>> = CLUSTER_KEYS;

/** Parses the cluster's ini file. An absent file is the empty text. */
export function parseClusterIni(text: string, file: string): ClusterFile {
  const { assignments, known, problems, warnings } = new Scanner(text, file);
  const parsed = ini.parse(known.join('\n')) as Partial<Record<string, Record<string, unknown>>>;
  const values: Values = {};
  for (const { section, key, parse, ...place } of assignments) {
    try {
      // ini turns true, false, null and quoted numbers into other types; as text they are what was written.
      (values[section] ??= {})[key] = parse(String(parsed[section]?.[key]));
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      problems.push(problemAt('bad-value', { ...place, key }, `${key} ${error.message}.`));
    }
  }
  return {
    cluster: withDefaults('cluster', values) as ClusterSettings,
    routes: (values[ROUTES.section] ?? {}) as Record<string, string>,
    metrics: withDefaults('metrics', values) as MetricsSettings,
    log: withDefaults('log', values) as LogSettings,
    lines: Object.fromEntries(
      assignments.map(({ section, key, line }) => [`${section}.${key}`, line ?? 0]),
    ),
    problems,
    warnings,
  };
}

function withDefaults(
  section: keyof typeof CLUSTER_KEYS,
  values: Values,
): Record<string, number | string | null> {
  return Object.fromEntries(
    Object.entries(TABLE[section] ?? {}).map(([key, { default: initial, parse }]) => [
      key,
      values[section]?.[key] ?? (initial === null ? null : parse(initial)),
    ]),
  );
}

/**
 * Finds the line of every key, and the text that may be given to the ini package: the lines of known sections and keys
 * only. The package would silently drop what it does not understand, and would let `[cluster.workers]`, `workers[]` or
 * `__proto__` replace other values.
 */
class Scanner {
  readonly assignments: Assignment[] = [];
  readonly problems: ConfigProblem[] = [];
  readonly warnings: string[] = [];
  readonly known: string[] = [];
  readonly #lines = new Map<string, number>();
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
    const parse = parserOf(section, key);
    if (parse === undefined) {
      if (section === ROUTES.section) {
        const sentence = `"${key}" is not the name of a driver: write one such as qemu, or default.`;
        this.problems.push(problemAt('bad-value', place, sentence));
      } else {
        this.warnings.push(withPlace(place, `The unknown key ${key} in [${section}] is ignored.`));
      }
      return;
    }
    const first = this.#lines.get(`${section}.${key}`);
    if (first !== undefined) {
      const sentence = `${key} is set a second time; the value of line ${first} counts.`;
      this.warnings.push(withPlace(place, sentence));
      return;
    }
    this.#lines.set(`${section}.${key}`, number);
    this.known.push(line);
    this.assignments.push({ ...place, section, parse });
  }
}

function isSection(name: string): boolean {
  return name === ROUTES.section || Object.hasOwn(TABLE, name);
}

function parserOf(section: string, key: string): Parse | undefined {
  if (section === ROUTES.section) return ROUTES.driver.test(key) ? ROUTES.parse : undefined;
  const rows = TABLE[section];
  return rows !== undefined && Object.hasOwn(rows, key) ? rows[key]?.parse : undefined;
}
