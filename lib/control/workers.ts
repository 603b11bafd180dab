/** The least and the most worker processes. */
export interface WorkerBounds {
  readonly minWorkers: number;
  readonly maxWorkers: number;
}

/** User and group that workers run as. */
export interface WorkerUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Why a worker was replaced: it ended by itself, its event loop hung, it used more than
 * max_worker_memory, or SASL logins had used up its thread keys.
 */
export const restartReasons = ['crash', 'hang', 'memory', 'sasl'] as const;
export type RestartReason = (typeof restartReasons)[number];
