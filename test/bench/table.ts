import { medianOf, type Report, type RowResults } from './results.js';

/** Competitors that others are compared with, and what the column is called. */
export interface Yardstick {
  readonly competitor: string;
  readonly label: string;
}

/** The whole report as text, rows in the order in which they were measured. */
export function renderTable(report: Report, yardsticks: readonly Yardstick[]): string {
  const { machine, date, seconds, repeats } = report;
  const parts = [
    `${date}  ${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, Node.js ${machine.node}`,
    `medians of ${repeats} repetitions of ${seconds} s, taken in turn`,
    ...report.rows.map((row) => renderRow(row, yardsticks)),
    ...report.skipped.map(({ rows, reason }) => `${rows}: not measured, ${reason}`),
    ...report.headroom.map(
      ({ row, factor }) =>
        `load generator at ${row}: ${factor.toFixed(1)} times what the fastest proxy reaches` +
        (factor < requiredHeadroom ? `; below ${requiredHeadroom}, so it may be the limit` : ''),
    ),
  ];
  return `${parts.join('\n\n')}\n`;
}

/** The load generator is not the limit when it reaches this many times what a proxy does. */
const requiredHeadroom = 3;

function renderRow(row: RowResults, yardsticks: readonly Yardstick[]): string {
  const metrics = Object.entries(row.metrics);
  const [first] = metrics;
  const names = Object.keys(row.competitors);
  const present = yardsticks.filter(({ competitor }) => names.includes(competitor));
  const head = ['', ...metrics.map(([, { name }]) => name), ...present.map(({ label }) => label)];
  const lines = names.map((name) => [
    name,
    ...metrics.map(([key, { digits }]) => formatFigure(medianOf(row, name, key), digits)),
    ...present.map(({ competitor }) =>
      first === undefined ? '' : ratio(row, name, competitor, first[0]),
    ),
  ]);
  return `${row.name}: ${row.title}\n${align([head, ...lines])}`;
}

function ratio(row: RowResults, name: string, yardstick: string, key: string): string {
  const [value, base] = [medianOf(row, name, key), medianOf(row, yardstick, key)];
  return value === null || base === null ? '-' : (value / base).toFixed(2);
}

/** A number with thousands set apart, or a dash. */
export function formatFigure(value: number | null, digits: number): string {
  if (value === null) return '-';
  return value.toFixed(digits).replace(/\B(?=(\d{3})+(?!\d)(?<!\.\d*))/g, ' ');
}

function align(cells: readonly (readonly string[])[]): string {
  const widths = cells[0]!.map((_, column) =>
    Math.max(...cells.map((line) => line[column]!.length)),
  );
  return cells
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 ? `  ${cell.padEnd(widths[0]!)}` : cell.padStart(widths[column]!),
        )
        .join('  '),
    )
    .join('\n');
}
