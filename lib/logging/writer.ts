import { multistream, pino, type DestinationStream } from 'pino';
import { logTarget, type LogOutput } from '../config/log-settings.js';
import { jsonFields, type LogFormat } from './format.js';
import { logSockets, OpenOutput, type LogSockets } from './log-output.js';
import { logLevels, type LogLevel, type LogRecord } from './logger.js';

/** Where the log goes, and how its lines look. */
export interface WriterSettings {
  readonly format: LogFormat;
  /** Of those with the same target the last counts. */
  readonly outputs: readonly LogOutput[];
}

/** Something new that is ready but not in force yet. */
export interface PreparedChange {
  commit(): void;
  abandon(): void;
}

/** Pino's own numbers of our levels. */
const pinoLevels = {
  debug: 20,
  info: 30,
  warning: 40,
  error: 50,
} as const satisfies Record<LogLevel, number>;

/** Under what name the writer speaks of its outputs. */
const component = 'util.log';

type PinoLogger = pino.Logger<LogLevel, true>;

/**
 * Where all lines of all processes end: one writer in the primary, so that they never interleave.
 * pino serialises a record and picks the outputs by level; each output has a queue of its own, so
 * that one that is slow or broken neither blocks the process nor holds up the others.
 */
export class LogWriter {
  private open: ReadonlyMap<string, OpenOutput> = new Map();
  private log: PinoLogger;
  private closedDrops = 0;

  /** Throws LogOpenError. */
  constructor(
    private settings: WriterSettings,
    private readonly sockets: LogSockets = logSockets,
  ) {
    this.open = this.openOutputs(settings.outputs);
    this.log = this.makeLog();
  }

  get outputs(): readonly LogOutput[] {
    return this.settings.outputs;
  }

  /** Lines dropped so far, each counted once for every output that lost it. */
  get drops(): number {
    return [...this.open.values()].reduce((sum, { drops }) => sum + drops, this.closedDrops);
  }

  readonly write = (record: LogRecord): void => {
    this.log[record.level]({ record });
  };

  /** Opens what is new in `settings`. Throws LogOpenError, and nothing has changed then. */
  prepare(settings: WriterSettings): PreparedChange {
    const open = this.openOutputs(settings.outputs);
    const closeAllBut = (kept: Iterable<OpenOutput>, all: Iterable<OpenOutput>): void => {
      const staying = new Set(kept);
      for (const output of all) if (!staying.has(output)) this.closeOutput(output);
    };
    return {
      commit: () => {
        const before = this.open;
        this.settings = settings;
        this.open = open;
        this.log = this.makeLog();
        closeAllBut(open.values(), before.values());
      },
      abandon: () => closeAllBut(this.open.values(), open.values()),
    };
  }

  /**
   * Opens files anew, since a log's rotation may have moved them away, and says in the log what
   * cannot be opened.
   */
  reopen(): void {
    for (const [target, output] of this.open) {
      try {
        output.reopen();
      } catch (error) {
        this.complain(
          `cannot open ${target} anew, the log goes on in the old file: ${(error as Error).message}`,
        );
      }
    }
  }

  /** Writes out what waits, as far as possible at once; to call when the process ends. */
  flush(): void {
    for (const output of this.open.values()) output.flush();
  }

  /** Writes a line of the writer's own. */
  complain(message: string): void {
    this.write({ time: Date.now(), pid: process.pid, level: 'error', component, message });
  }

  private openOutputs(outputs: readonly LogOutput[]): ReadonlyMap<string, OpenOutput> {
    const open = new Map<string, OpenOutput>();
    try {
      for (const output of outputs) {
        const target = logTarget(output);
        const there = open.get(target) ?? this.open.get(target);
        open.set(
          target,
          there ?? OpenOutput.open(output, this.sockets, (message) => this.complain(message)),
        );
      }
    } catch (error) {
      for (const [target, output] of open) if (!this.open.has(target)) output.close();
      throw error;
    }
    return open;
  }

  private closeOutput(output: OpenOutput): void {
    output.close();
    this.closedDrops += output.drops;
  }

  private makeLog(): PinoLogger {
    const levels = new Map(
      this.settings.outputs.map((output) => [logTarget(output), output.level]),
    );
    const streams = [...this.open].map(([target, output]) => ({
      level: pinoLevels[logLevels[(levels.get(target) ?? 1) - 1] ?? 'debug'],
      stream: streamTo(output, this.settings.format),
    }));
    return pino(
      {
        customLevels: pinoLevels,
        useOnlyCustomLevels: true,
        level: 'debug',
        base: null,
        timestamp: false,
        messageKey: 'message',
        formatters: {
          level: (label) => ({ level: label }),
          log: ({ record }) => jsonFields(record as LogRecord),
        },
      },
      multistream(streams),
    );
  }
}

/** A destination for pino that is given the record beside the line that pino makes of it. */
function streamTo(output: OpenOutput, format: LogFormat): DestinationStream {
  const stream = {
    [Symbol.for('pino.metadata')]: true,
    lastObj: null as { readonly record: LogRecord } | null,
    write(line: string): void {
      if (stream.lastObj !== null) {
        output.write(stream.lastObj.record, format === 'json' ? line : null);
      }
    },
  };
  return stream;
}
