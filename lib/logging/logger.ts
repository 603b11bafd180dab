import { matches, type LogFilter, type LogLevelNumber } from '../config/log-settings.js';

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

/** What decides which lines are logged. Plain data: workers are sent it. */
export interface LogSettings {
  readonly level: LogLevelNumber;
  /** The first whose `match` fits a component's name takes the place of `level`. */
  readonly filters: readonly LogFilter[];
}

/**
 * The least level of one component's lines that are logged; kept up to date by its LogThreshold.
 */
interface ComponentThreshold {
  level: LogLevelNumber;
}

/** The numbers of the levels in virtproxyd.conf. */
const levelNumbers = {
  debug: 1,
  info: 2,
  warning: 3,
  error: 4,
} as const satisfies Record<LogLevel, LogLevelNumber>;

/** Characters of a message; the rest of a longer one, which holds some peer's text, is left out. */
const maxMessageLength = 16 * 1024;

/** What all loggers of a process share; changing it takes effect at once in all of them. */
export class LogThreshold {
  private readonly components = new Map<string, ComponentThreshold>();

  constructor(private settings: LogSettings) {}

  change(settings: LogSettings): void {
    this.settings = settings;
    for (const [name, threshold] of this.components) threshold.level = this.levelFor(name);
  }

  /** For loggers only. */
  of(component: string): ComponentThreshold {
    let threshold = this.components.get(component);
    if (threshold === undefined) {
      threshold = { level: this.levelFor(component) };
      this.components.set(component, threshold);
    }
    return threshold;
  }

  private levelFor(component: string): LogLevelNumber {
    const { level, filters } = this.settings;
    return filters.find(({ match }) => matches(match, component))?.level ?? level;
  }
}

/**
 * Writes lines for one component. Callers build costly messages only after asking `debugging` or
 * `wants`. Never pass secrets: passwords, SASL data, secret values or keys.
 */
export class Logger {
  private readonly least: ComponentThreshold;

  constructor(
    private readonly component: string,
    private readonly threshold: LogThreshold,
    private readonly sink: LogSink,
  ) {
    this.least = threshold.of(component);
  }

  /** Whether debug lines are wanted. */
  get debugging(): boolean {
    return this.least.level === levelNumbers.debug;
  }

  /** Whether lines of a level are wanted. */
  wants(level: LogLevel): boolean {
    return levelNumbers[level] >= this.least.level;
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
    if (!this.wants(level)) return;
    this.sink({
      time: Date.now(),
      pid: process.pid,
      level,
      component: this.component,
      message: shortened(message),
    });
  }
}

function shortened(message: string): string {
  const left = message.length - maxMessageLength;
  if (left <= 0) return message;
  return `${message.slice(0, maxMessageLength)}… (${left} more characters)`;
}
