import {
  callStatuses,
  durationBounds,
  type WorkerReport,
} from '../../lib/control/worker-report.js';
import { program } from '../../lib/rpc/frame.js';

/** The bucket of calls that took so many seconds. */
export const bucketOf = (seconds: number): number =>
  durationBounds.findIndex((bound) => seconds <= bound);

/** A report of calls that were answered by virtqemud within `seconds` each. */
export function reportOf(calls: number, seconds: number, errors = 0): WorkerReport {
  const durations = Array<number>(durationBounds.length + 1).fill(0);
  durations[bucketOf(seconds)] = calls;
  const byStatus = { ok: calls - errors, error: errors, lost: 0, refused: 0 };
  const counts = callStatuses.map((status) => byStatus[status]);
  return {
    underWay: 0,
    held: 0,
    calls: [{ program: program.remote, procedure: 59, counts }],
    daemons: [
      {
        daemon: 'virtqemud',
        open: 1,
        opened: 0,
        failures: [0, 0, 0, 0],
        durations,
        seconds: 0,
        restarts: [],
        reopening: 0,
        reopened: 0,
        repeated: 0,
        failed: 0,
      },
    ],
    bytes: {
      unix: { in: 28 * calls, out: 56 * calls },
      tcp: { in: 0, out: 0 },
      tls: { in: 0, out: 0 },
    },
    lostLines: 0,
    seconds: 1,
    cpuSeconds: 0.5,
    residentBytes: 1,
    lagSeconds: 0,
  };
}
