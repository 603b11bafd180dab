import type { WorkerBounds } from '../../control/workers.js';

/** Above this share of their time, on average, workers are busy, and one more is wanted. */
const busy = 0.6;

/** One fewer would do if the others were then busy for less than this share of their time. */
const quiet = 0.3;

/**
 * Clients for each worker beyond which one more is wanted though none is busy yet: a client stays
 * where it is, so that those who come first must not all be in one.
 */
const manyClients = 16;

/** As many as the others may then have if one fewer is to do. */
const fewClients = 8;

/** What one worker does. */
export interface Occupation {
  /** The share of the last second or so in which its event loop was busy: 0 to 1. */
  readonly utilisation: number;
  readonly clients: number;
}

/** What is known of the workers at a moment. */
export interface Situation {
  /** Those that take new clients now. */
  readonly ready: readonly Occupation[];
  readonly wanted: number;
  readonly bounds: WorkerBounds;
  /** A worker that takes no more clients still has some. */
  readonly isDraining: boolean;
  /** Since when one fewer would have done; null when it would not. */
  readonly quietSince: number | null;
  /** Seconds of any steady clock, `quietSince` as well. */
  readonly now: number;
  /** Seconds without a break in which one fewer would have done, before it is let go of. */
  readonly patience: number;
}

export type Demand = Pick<Situation, 'wanted' | 'quietSince'>;

/**
 * How many workers there should be: one more at once where those there are are busy or have many
 * clients, one fewer after some time of quiet. Between the two lies a factor of two, so that what
 * adds a worker does not take it away again. Nothing changes while some are still to come, and none
 * is let go of while another drains, or those with clients that stay would become more and more.
 */
export function demandOf(situation: Situation): Demand {
  const { ready, wanted, bounds, isDraining, now, patience } = situation;
  if (ready.length !== wanted) return { wanted, quietSince: null };
  if (wanted < bounds.maxWorkers && areTooFew(ready)) {
    return { wanted: wanted + 1, quietSince: null };
  }
  if (wanted <= bounds.minWorkers || isDraining || !wouldFewerDo(ready)) {
    return { wanted, quietSince: null };
  }
  const quietSince = situation.quietSince ?? now;
  return now - quietSince < patience
    ? { wanted, quietSince }
    : { wanted: wanted - 1, quietSince: null };
}

/** The sums over some workers; the utilisation of n of them is 0 to n. */
export function totalOf(workers: readonly Occupation[]): Occupation {
  return {
    utilisation: workers.reduce((sum, { utilisation }) => sum + utilisation, 0),
    clients: workers.reduce((sum, { clients }) => sum + clients, 0),
  };
}

function areTooFew(workers: readonly Occupation[]): boolean {
  const { utilisation, clients } = totalOf(workers);
  return utilisation > busy * workers.length || clients > manyClients * workers.length;
}

function wouldFewerDo(workers: readonly Occupation[]): boolean {
  const { utilisation, clients } = totalOf(workers);
  const others = workers.length - 1;
  return utilisation < quiet * others && clients <= fewClients * others;
}
