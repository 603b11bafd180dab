import { CLUSTER_KEYS, type ClusterRow, isList, ROUTES, SECTION_NOTES } from './cluster-keys.js';
import { type KeyRow, SECTIONS } from './key-row.js';
import { CONF_KEYS, rowOf } from './keys.js';

const WIDTH = 78;

const TYPE_NAMES = { port: 'string', enum: 'string', 'string-list': 'list of strings' } as const;

const CONF_HEAD = `Configuration of virtproxyd, the libvirt proxy daemon. See virtproxyd(8).

Every key is shown with its default, or with an example if it has none. Write KEY = VALUE, one to a line. A value is an integer, a string in quotes or a list of strings such as
[ "one", "two" ]. A bool is 0 or 1.`;

const CLUSTER_HEAD = `Settings of virtproxyd's worker processes, which virtproxyd.conf does not know. See virtproxyd-cluster.ini(5).

This file stands beside virtproxyd.conf. It may be absent, as may every section and key in it.`;

/** The sample virtproxyd.conf: every key, commented out, with its help. */
export function sampleConf(): string {
  const sections = Object.entries(SECTIONS).map(([section, { title, note }]) => {
    const keys = CONF_KEYS.filter((key) => rowOf(key).section === section);
    const blocks = keys.map((key) => {
      const row = rowOf(key);
      const value = conf(row.example ?? systemDefault(row));
      return `${comment(`${helpOf(row)}\nDefault: ${defaultText(row)}`)}#${key} = ${value}\n`;
    });
    return [`${'#'.repeat(WIDTH)}\n${comment(`${title}. ${note}`)}`, ...blocks].join('\n');
  });
  return [comment(CONF_HEAD), ...sections].join('\n');
}

/** The sample virtproxyd-cluster.ini: every section, and every key commented out with its help. */
export function sampleClusterIni(): string {
  const sections = clusterSections().map(([section, rows]) => {
    const note = SECTION_NOTES[section];
    return [
      `[${section}]\n`,
      ...(note === undefined ? [] : [comment(note)]),
      ...rows.map(([key, row]) => {
        const text = `${row.help}\nDefault: ${clusterDefault(row)}`;
        return comment(text) + sampleLines(key, row).join('');
      }),
    ].join('\n');
  });
  const examples = Object.entries(ROUTES.examples).map(([key, path]) => `#${key} = ${path}\n`);
  const routes = `[${ROUTES.section}]\n\n${comment(ROUTES.help)}${examples.join('')}`;
  return [comment(CLUSTER_HEAD), ...sections, routes].join('\n');
}

/** virtproxyd(8)'s list of virtproxyd.conf keys, in man(7) macros. */
export function manKeys(): string {
  return Object.entries(SECTIONS)
    .map(([section, { title, note }]) => {
      const keys = CONF_KEYS.filter((key) => rowOf(key).section === section);
      const items = keys.map((key) => {
        const row = rowOf(key);
        const type = row.type in TYPE_NAMES ? TYPE_NAMES[row.type as 'port'] : row.type;
        return manItem(key, `${type}, default: ${defaultText(row)}`, helpOf(row));
      });
      return `.SS ${title}\n${manText(note)}${items.join('')}`;
    })
    .join('');
}

/** virtproxyd-cluster.ini(5)'s list of settings, in man(7) macros. */
export function manClusterKeys(): string {
  const sections = clusterSections().map(([section, rows]) => {
    const items = rows.map(([key, row]) =>
      manItem(
        key,
        `${isList(row) ? 'list of ' : ''}${row.type}, default: ${clusterDefault(row)}`,
        row.help,
      ),
    );
    return `.SS [${section}]\n${manText(SECTION_NOTES[section] ?? '')}${items.join('')}`;
  });
  return `${sections.join('')}.SS [${ROUTES.section}]\n${manText(ROUTES.help)}`;
}

const clusterDefault = (row: ClusterRow): string =>
  isList(row) ? 'nobody' : (row.default ?? 'off');

function sampleLines(key: string, row: ClusterRow): readonly string[] {
  if (!isList(row)) return [`#${key} = ${row.default ?? row.example ?? ''}\n`];
  const [only, ...others] = row.examples;
  const name = others.length === 0 ? key : `${key}[]`;
  return [only, ...others].map((example) => `#${name} = ${example ?? ''}\n`);
}

function clusterSections(): [string, [string, ClusterRow][]][] {
  const sections: Record<string, Record<string, ClusterRow>> = CLUSTER_KEYS;
  return Object.entries(sections).map(([section, rows]) => [section, Object.entries(rows)]);
}

function helpOf({ help, ignored }: KeyRow): string {
  return ignored === undefined ? help : `${help} Has no effect on virtproxyd; ${ignored}.`;
}

function defaultText(row: KeyRow): string {
  if (row.unset !== undefined) return row.unset;
  if (row.default !== null && typeof row.default === 'object') {
    return `${conf(row.default.system)}, in session mode ${conf(row.default.session)}`;
  }
  return conf(row.default);
}

function systemDefault({ default: value }: KeyRow): boolean | number | string | null {
  return value !== null && typeof value === 'object' ? value.system : value;
}

/** A value in virtproxyd.conf's grammar. */
function conf(value: boolean | number | string | readonly string[] | null): string {
  if (typeof value === 'boolean') return value ? '1' : '0';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return `"${value}"`;
  return `[ ${(value ?? []).map((item) => `"${item}"`).join(', ')} ]`;
}

function comment(text: string): string {
  return wrap(text, WIDTH - 2)
    .map((line) => `${`# ${line}`.trimEnd()}\n`)
    .join('');
}

function manItem(key: string, note: string, help: string): string {
  return `.TP\n\\fB${roff(key)}\\fP (${roff(note)})\n${manText(help)}`;
}

/** Each sentence begins a new line, as man-pages(7) asks. */
function manText(text: string): string {
  if (text === '') return '';
  return text
    .split(/(?<=[.:]) (?=[A-Z])/)
    .flatMap((sentence) => wrap(sentence, WIDTH - 8))
    .map((line) => `${roff(line)}\n`)
    .join('');
}

function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('~', '\\(ti')
    .replace(/^[.']/, '\\&$&');
}

function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = [];
    let line = '';
    for (const word of paragraph.split(' ')) {
      if (line !== '' && line.length + 1 + word.length > width) {
        lines.push(line);
        line = word;
      } else {
        line = line === '' ? word : `${line} ${word}`;
      }
    }
    return [...lines, line];
  });
}
