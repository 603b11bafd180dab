/** Levels of a log line, least important first; their numbers in virtproxyd.conf are 1 to 4. */
export const logLevels = ['debug', 'info', 'warning', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

/** One log line before it is written. Plain data, so that a worker can send it to the primary. */
export interface LogRecord {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly pid: number;
  readonly level: LogLevel;
  /** The part of the program that speaks: a room or a file in it. */
  readonly component: string;
  readonly message: string;
}

export type LogSink = (record: LogRecord) => void;

/** What all loggers of a process share; changing it takes effect at once in all of them. */
export interface LogThreshold {
  level: LogLevel;
}

/** The level for a number of virtproxyd.conf's log_level. */
export function logLevelOf(number: number): LogLevel {
  return logLevels[Math.min(Math.max(number, 1), logLevels.length) - 1] ?? 'warning';
}

/**
 * Writes lines for one component. Callers build costly messages only after asking `debugging`.
 * Never pass secrets: passwords, SASL data, secret values or keys.
 */
export class Logger {
  constructor(
    private readonly component: string,
    private readonly threshold: LogThreshold,
    private readonly sink: LogSink,
  ) {}

  /** Whether debug lines are wanted. */
  get debugging(): boolean {
    return this.threshold.level === 'debug';
  }

  /** A logger for another component with the same threshold and sink. */
  for(component: string): Logger {
    return new Logger(component, this.threshold, this.sink);
  }

  debug(message: string): void {
    this.write('debug', message);
  }

  info(message: string): void {
    this.write('info', message);
  }

  warning(message: string): void {
    this.write('warning', message);
  }

  error(message: string): void {
    this.write('error', message);
  }

  private write(level: LogLevel, message: string): void {
    if (logLevels.indexOf(level) < logLevels.indexOf(this.threshold.level)) return;
    const { component } = this;
    this.sink({ time: Date.now(), pid: process.pid, level, component, message });
  }
}
