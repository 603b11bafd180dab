import { Logger, LogThreshold } from '../../lib/logging/logger.js';

/** A logger, and the lines it was given as `level: message`. */
export interface RecordedLog {
  readonly log: Logger;
  readonly lines: string[];
}

export function recordedLog(): RecordedLog {
  const lines: string[] = [];
  const log = new Logger('test', new LogThreshold({ level: 1, filters: [] }), (record) => {
    lines.push(`${record.level}: ${record.message}`);
  });
  return { log, lines };
}
