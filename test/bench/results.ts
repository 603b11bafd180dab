/** A figure that a row gives for each competitor. */
export interface Metric {
  readonly name: string;
  readonly better: 'more' | 'less';
  /** Decimal places to show. */
  readonly digits: number;
}

/** A row's figures, the same for all competitors and every repetition. */
export type Metrics = Readonly<Record<string, Metric>>;

/** One repetition's figures by the keys of the row's metrics. */
export type Figures = Readonly<Record<string, number>>;

export interface RowDescription {
  /** Short, as `--rows` takes it. */
  readonly name: string;
  /** A phrase for people. */
  readonly title: string;
  readonly metrics: Metrics;
}

/** One row's figures of one competitor, a list with an entry for each repetition. */
type Repetitions = Record<string, number[]>;

export interface RowResults extends RowDescription {
  /** By the competitor's name, in the order in which they were first measured. */
  readonly competitors: Record<string, Repetitions>;
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  readonly node: string;
}

/** A whole run, as the JSON file has it. */
export interface Report {
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly machine: Machine;
  readonly seconds: number;
  readonly repeats: number;
  readonly rows: readonly RowResults[];
  /** Rows that could not be measured, with the reason. */
  readonly skipped: readonly { readonly rows: string; readonly reason: string }[];
  readonly headroom: readonly Headroom[];
}

/** How far the load generator is from being the limit, in one row. */
export interface Headroom {
  readonly row: string;
  /** Calls a second without a proxy, over those of the fastest proxy. */
  readonly factor: number;
}

/** Collects what is measured. */
export class Results {
  readonly rows: RowResults[] = [];

  add({ name, title, metrics }: RowDescription, competitor: string, figures: Figures): void {
    let row = this.rows.find((known) => known.name === name);
    if (!row) this.rows.push((row = { name, title, metrics, competitors: {} }));
    const repetitions = (row.competitors[competitor] ??= {});
    for (const [key, value] of Object.entries(figures)) (repetitions[key] ??= []).push(value);
  }
}

/** Null when there is no such figure. */
export function medianOf(row: RowResults, competitor: string, key: string): number | null {
  const values = row.competitors[competitor]?.[key]?.toSorted((a, b) => a - b) ?? [];
  const middle = values.length / 2;
  const [low, high] = [values[Math.ceil(middle) - 1], values[Math.floor(middle)]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}

/** The headroom in all rows named, as far as they were measured with `baseline` and with others. */
export function headroomOf(
  rows: readonly RowResults[],
  names: readonly string[],
  baseline: string,
  key: string,
): Headroom[] {
  return rows.flatMap((row) => {
    const most = medianOf(row, baseline, key);
    const others = Object.keys(row.competitors)
      .filter((name) => name !== baseline)
      .map((name) => medianOf(row, name, key) ?? 0);
    if (!names.includes(row.name) || most === null || others.length === 0) return [];
    return [{ row: row.name, factor: most / Math.max(...others) }];
  });
}
