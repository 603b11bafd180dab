import type { Logger } from '../logging/logger.js';

/**
 * `starting`: nobody is served yet; `reloading`, `upgrading`: clients are served while a new
 * configuration or a successor comes up; `handedOver`: a successor serves new clients, this process
 * those it has; `stopping`: it ends.
 */
export const primaryStates = [
  'starting',
  'serving',
  'reloading',
  'upgrading',
  'handedOver',
  'stopping',
] as const;
export type PrimaryState = (typeof primaryStates)[number];

/** States in which new clients are let in. */
const servingStates: readonly PrimaryState[] = ['serving', 'reloading', 'upgrading'];

/** Carries out what a state means. */
export interface LifecycleEffects {
  /** `reason` is empty unless somebody gave one. */
  onState(state: PrimaryState, from: PrimaryState, reason: string): void;
}

/** In which state the primary is. */
export class Lifecycle {
  private current: PrimaryState = 'starting';

  constructor(
    private readonly effects: LifecycleEffects,
    private readonly log: Logger,
  ) {}

  get state(): PrimaryState {
    return this.current;
  }

  get isServing(): boolean {
    return servingStates.includes(this.current);
  }

  /**
   * Goes from one of the states `from` to another, with all that this means; from any other nothing
   * happens: false.
   */
  transition(from: readonly PrimaryState[], to: PrimaryState, reason = ''): boolean {
    const before = this.current;
    if (!from.includes(before)) return false;
    this.current = to;
    this.log.debug(`${before} → ${to}`);
    this.effects.onState(to, before, reason);
    return true;
  }

  /** Ends the daemon, whatever it does at the moment. */
  stop(reason: string): void {
    this.transition(
      primaryStates.filter((state) => state !== 'stopping'),
      'stopping',
      reason,
    );
  }
}
