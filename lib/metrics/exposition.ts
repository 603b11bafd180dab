import { Counter, Gauge, Registry, type Histogram } from 'prom-client';
import { durationBounds } from '../control/worker-report.js';
import type { Facts } from './facts.js';
import { families, type Family, type Sample } from './families.js';

/** The histogram of call durations. */
export const durations = {
  name: 'virtproxyd_call_duration_seconds',
  help: 'Time from the forwarding of a call to its reply.',
} as const;

/** The metrics in Prometheus' text format. */
export class Exposition {
  private readonly registry = new Registry();
  /** What is being told. */
  private facts: Facts | null = null;

  constructor() {
    for (const family of families) this.register(family);
    this.registerDurations();
  }

  /** The format's media type. */
  get contentType(): string {
    return this.registry.contentType;
  }

  text(facts: Facts): Promise<string> {
    this.facts = facts;
    return this.registry.metrics();
  }

  private register({ name, type, help, labels, samples }: Family): void {
    const current = (): Iterable<Sample> => (this.facts === null ? [] : samples(this.facts));
    const configuration = { name, help, labelNames: [...labels], registers: [this.registry] };
    if (type === 'counter') {
      new Counter({
        ...configuration,
        collect() {
          this.reset();
          for (const { labels: of, value } of current()) this.inc(of, value);
        },
      });
    } else {
      new Gauge({
        ...configuration,
        collect() {
          this.reset();
          for (const { labels: of, value } of current()) this.set(of, value);
        },
      });
    }
  }

  /** prom-client's own histogram takes single durations only; ours are counted by the workers. */
  private registerDurations(): void {
    const histogram = {
      ...durations,
      get: () =>
        Promise.resolve({ ...durations, type: 'histogram', values: [...this.durationSamples()] }),
    };
    this.registry.registerMetric(histogram as unknown as Histogram);
  }

  private *durationSamples(): Iterable<{
    readonly metricName: string;
    readonly labels: Readonly<Record<string, string | number>>;
    readonly value: number;
  }> {
    const { name } = durations;
    for (const [daemon, { durations: counts, seconds }] of this.facts?.totals.daemons ?? []) {
      let count = 0;
      for (const [index, le] of [...durationBounds, '+Inf'].entries()) {
        count += counts[index] ?? 0;
        yield { metricName: `${name}_bucket`, labels: { daemon, le }, value: count };
      }
      yield { metricName: `${name}_sum`, labels: { daemon }, value: seconds };
      yield { metricName: `${name}_count`, labels: { daemon }, value: count };
    }
  }
}
