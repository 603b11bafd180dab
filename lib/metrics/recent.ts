import { callStatuses, durationBounds } from '../control/worker-report.js';
import type { WorkerTotals } from './worker-totals.js';

/** Milliseconds between samples. */
export const sampleInterval = 1000;

/** Samples that are kept: two minutes. */
const memory = 121;

/** Samples over which rates are reckoned, and over which quantiles. */
const rateSpan = 10;
const quantileSpan = 60;

/** All counts as they were at a moment. */
interface Sample {
  /** Milliseconds of `performance.now()`. */
  readonly at: number;
  readonly calls: number;
  /** Those of the calls that did not end well. */
  readonly errors: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly durations: ReadonlyMap<string, readonly number[]>;
}

type Count = 'calls' | 'errors' | 'bytesIn' | 'bytesOut';

/** What the last two minutes were like, for people; Prometheus reckons for itself. */
export class Recent {
  private readonly samples: Sample[] = [];

  take(totals: WorkerTotals, at: number): void {
    this.samples.push(sampleOf(totals, at));
    if (this.samples.length > memory) this.samples.shift();
  }

  /** Forgets everything. */
  clear(): void {
    this.samples.length = 0;
  }

  /** A second, over the last ten. */
  rate(count: Count): number {
    const [from, to] = this.span(rateSpan);
    return perSecond(from, to, ({ [count]: value }) => value);
  }

  /** Calls a second that the daemon answered, over the last ten. */
  daemonRate(daemon: string): number {
    const [from, to] = this.span(rateSpan);
    return perSecond(from, to, ({ durations }) => total(durations.get(daemon) ?? []));
  }

  /** Calls a second of each of the last seconds, oldest first, two minutes at most. */
  callHistory(): number[] {
    return this.samples
      .slice(1)
      .map((to, index) => perSecond(this.samples[index], to, ({ calls }) => calls));
  }

  /**
   * Seconds within which a share of the last minute's calls was answered: those of one daemon, or
   * of all. Null without calls.
   */
  quantile(share: number, daemon?: string): number | null {
    const [from, to] = this.span(quantileSpan);
    if (from === undefined || to === undefined) return null;
    const daemons = daemon === undefined ? [...to.durations.keys()] : [daemon];
    const counts = Array<number>(durationBounds.length + 1).fill(0);
    for (const name of daemons) {
      const before = from.durations.get(name);
      for (const [bucket, count] of (to.durations.get(name) ?? []).entries()) {
        counts[bucket] = (counts[bucket] ?? 0) + count - (before?.[bucket] ?? 0);
      }
    }
    return quantileOf(counts, share);
  }

  /** The newest sample, and one that is so much older, as far as there are so many. */
  private span(length: number): [from: Sample | undefined, to: Sample | undefined] {
    return [this.samples.at(-length - 1) ?? this.samples[0], this.samples.at(-1)];
  }
}

/**
 * As Prometheus' histogram_quantile: evenly spread within a bucket; what is beyond the last bound
 * counts as that.
 */
export function quantileOf(counts: readonly number[], share: number): number | null {
  const wanted = total(counts) * share;
  if (wanted === 0) return null;
  let below = 0;
  for (const [bucket, bound] of durationBounds.entries()) {
    const count = counts[bucket] ?? 0;
    const lower = durationBounds[bucket - 1] ?? 0;
    if (below + count >= wanted) return lower + ((bound - lower) * (wanted - below)) / count;
    below += count;
  }
  return durationBounds.at(-1) ?? null;
}

function sampleOf(totals: WorkerTotals, at: number): Sample {
  const counts = totals.callsByStatus;
  const { unix, tcp, tls } = totals.bytes;
  const calls = total(counts);
  return {
    at,
    calls,
    errors: calls - (counts[callStatuses.indexOf('ok')] ?? 0),
    bytesIn: unix.in + tcp.in + tls.in,
    bytesOut: unix.out + tcp.out + tls.out,
    durations: new Map([...totals.daemons].map(([name, { durations }]) => [name, [...durations]])),
  };
}

function perSecond(
  from: Sample | undefined,
  to: Sample | undefined,
  value: (sample: Sample) => number,
): number {
  if (from === undefined || to === undefined || to.at <= from.at) return 0;
  return ((value(to) - value(from)) * 1000) / (to.at - from.at);
}

function total(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}
