import { request, type IncomingHttpHeaders } from 'node:http';

/** Where the metrics are: a port of the loopback interface, or a UNIX socket. */
export type MetricsPlace = { readonly port: number } | { readonly socketPath: string };

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Asks over a connection of its own. Rejects with the system's error. */
export function ask(place: MetricsPlace, path: string, method = 'GET'): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', ...place, path, method, agent: false }, (answer) => {
      let body = '';
      answer.setEncoding('utf8').on('data', (text: string) => (body += text));
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }),
      );
      answer.on('error', reject);
    });
    asked.on('error', reject);
    asked.end();
  });
}

/**
 * What is exposed, checked for whatever Prometheus and its linter (`promtool check metrics`) would
 * object to.
 */
export class Scrape {
  private readonly types = new Map<string, string>();
  private readonly series = new Map<string, number>();

  constructor(readonly text: string) {
    if (!text.endsWith('\n')) throw new Error('The last line has no line feed.');
    const helps = new Set<string>();
    let current = '';
    for (const line of text.slice(0, -1).split('\n')) {
      const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
      if (keyword === 'HELP') {
        if (helps.has(name)) throw new Error(`${name} has a second HELP.`);
        helps.add(name);
        current = name;
      } else if (keyword === 'TYPE') {
        if (name !== current) throw new Error(`${name} has its TYPE without a HELP before it.`);
        checkName(name, rest);
        this.types.set(name, rest);
      } else if (line !== '') {
        this.addSample(line, current);
      }
    }
    for (const [name, type] of this.types) if (type === 'histogram') this.checkHistogram(name);
  }

  static async of(place: MetricsPlace): Promise<Scrape> {
    const { status, headers, body } = await ask(place, '/metrics');
    if (status !== 200) throw new Error(`Status ${status}: ${body}`);
    if (!headers['content-type']?.startsWith('text/plain; version=0.0.4')) {
      throw new Error(`Content-Type ${headers['content-type'] ?? 'none'}`);
    }
    return new Scrape(body);
  }

  get names(): readonly string[] {
    return [...this.types.keys()];
  }

  /** Names of those that count and never go back, histograms' parts included. */
  get counters(): readonly string[] {
    return [...this.series.keys()].filter((key) => {
      const name = key.replace(/\{.*/, '');
      const family = name.replace(/_(bucket|sum|count)$/, '');
      return this.types.get(name) === 'counter' || this.types.get(family) === 'histogram';
    });
  }

  /**
   * The value of a series, named as in the text: `name{label="value"}`. Undefined when there is
   * none.
   */
  value(series: string): number | undefined {
    return this.series.get(series);
  }

  /**
   * The sum of all series of a name whose labels have all of `labels`, such as
   * `daemon="virtqemud"`.
   */
  sum(name: string, ...labels: readonly string[]): number {
    let sum = 0;
    for (const [series, value] of this.series) {
      const isOfName = series === name || series.startsWith(`${name}{`);
      if (isOfName && labels.every((label) => series.includes(label))) sum += value;
    }
    return sum;
  }

  private addSample(line: string, family: string): void {
    const [, series = '', name = '', labels = '', value = ''] =
      /^(([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+)\})?) (\S+)$/.exec(line) ?? [];
    if (series === '') throw new Error(`This is no sample: ${line}`);
    const type = this.types.get(family);
    const suffix = name.slice(family.length);
    const suffixes = type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
    if (!name.startsWith(family) || !suffixes.includes(suffix)) {
      throw new Error(`${name} stands among the samples of ${family}.`);
    }
    const keys = [...labels.matchAll(/([a-z_]+)="/g)].map(([, key]) => key);
    if (new Set(keys).size < keys.length) throw new Error(`${series} has a label twice.`);
    if (this.series.has(series)) throw new Error(`${series} is there twice.`);
    if (!Number.isFinite(Number(value))) throw new Error(`${series} is ${value}.`);
    this.series.set(series, Number(value));
  }

  /** Buckets count up to the last, which has everything. */
  private checkHistogram(name: string): void {
    const last = new Map<string, number>();
    for (const [series, value] of this.series) {
      const [, labels, bound] = /^[a-z_]+_bucket\{(.*),le="(.*)"\}$/.exec(series) ?? [];
      if (labels === undefined || !series.startsWith(`${name}_bucket`)) continue;
      if (value < (last.get(labels) ?? 0))
        throw new Error(`${series} is less than the one before.`);
      last.set(labels, value);
      if (bound === '+Inf' && value !== this.series.get(`${name}_count{${labels}}`)) {
        throw new Error(`${series} is not the count.`);
      }
    }
  }
}

/** Prometheus' conventions. Source: https://prometheus.io/docs/practices/naming/ */
function checkName(name: string, type: string): void {
  if (!/^(virtproxyd|process)(_[a-z0-9]+)+$/.test(name))
    throw new Error(`${name} is no good name.`);
  if ((type === 'counter') !== name.endsWith('_total')) throw new Error(`${name} is a ${type}.`);
  if (/milli|micro|nano|minutes|kilo|kib|percent/.test(name))
    throw new Error(`${name}: base units.`);
  if (!['counter', 'gauge', 'histogram'].includes(type)) throw new Error(`${name} is a ${type}.`);
}
