import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Configuration } from '../config/configuration.js';
import {
  logFiltersText,
  logOutputsText,
  parseLogFilters,
  parseLogOutputs,
  type LogLevelNumber,
  type LogOutput,
} from '../config/log-settings.js';
import { homelessness, type Environment } from '../config/paths.js';
import { ValueError } from '../config/values.js';
import { AuditFile, type AuditEntry } from './audit-file.js';
import { defaultOutputs } from './default-outputs.js';
import { LogOpenError } from './log-output.js';
import { LogThreshold, type LogSettings, type LogSink } from './logger.js';
import { LogWriter, type PreparedChange } from './writer.js';

export interface LogControlOptions {
  /** Runs in the background: see `defaultOutputs`. */
  readonly daemon: boolean;
  /** Level 2 at least. */
  readonly verbose: boolean;
  readonly env: Environment;
}

/** What a worker is to log and to record. */
export interface WorkerLogging extends LogSettings {
  readonly auditing: boolean;
}

/** A new configuration's outputs and files, open and not in force yet. */
export interface PreparedLogging extends PreparedChange {
  readonly forWorkers: WorkerLogging;
}

/** A text that log_outputs or log_filters cannot be; the message is a full sentence. */
export class LogSettingError extends Error {
  readonly code = 'LOG_SETTING';
}

/**
 * The log and the audit file of the whole daemon, and all that can be changed of them while it
 * runs.
 */
export class LogControl {
  readonly threshold: LogThreshold;
  readonly sink: LogSink;
  /** Told of every change that workers must know of. */
  onChange: (logging: WorkerLogging) => void = () => undefined;
  private readonly writer: LogWriter;
  private auditFile: AuditFile | null;
  private settings: LogSettings;
  private closedDrops = 0;
  /** A prepared change waits: what it shares with the present state must not be closed. */
  private changing = false;

  /** Throws LogOpenError. */
  constructor(
    private configuration: Configuration,
    private readonly options: LogControlOptions,
  ) {
    this.settings = this.settingsFor(configuration);
    this.threshold = new LogThreshold(this.settings);
    const { format, audit } = configuration.log;
    this.writer = new LogWriter({ format, outputs: this.outputsFor(configuration) });
    this.sink = this.writer.write;
    this.auditFile = audit === null ? null : this.openAudit(audit);
  }

  /** The least level that is logged where no filter says otherwise. */
  get level(): LogLevelNumber {
    return this.settings.level;
  }

  /** As log_outputs of virtproxyd.conf. */
  get outputs(): string {
    return logOutputsText(this.writer.outputs);
  }

  /** As log_filters of virtproxyd.conf; empty when there are none. */
  get filters(): string {
    return logFiltersText(this.settings.filters);
  }

  get forWorkers(): WorkerLogging {
    return { ...this.settings, auditing: this.auditFile !== null };
  }

  /** Lines of log and audit file that were dropped so far. */
  get drops(): number {
    return this.writer.drops + this.closedDrops + (this.auditFile?.drops ?? 0);
  }

  /**
   * Changes the outputs until the next reload; null or an empty text asks for the default ones.
   * Throws LogSettingError or LogOpenError, and nothing has changed then.
   */
  setOutputs(text: string | null): void {
    if (this.changing) {
      throw new LogSettingError('The daemon is reloading its configuration; try again after that.');
    }
    const wanted = parsed('log_outputs', (outputs) => parseLogOutputs(outputs), text);
    const outputs = wanted.length === 0 ? this.defaults(this.configuration) : wanted;
    this.writer.prepare({ format: this.configuration.log.format, outputs }).commit();
  }

  /**
   * Changes the filters until the next reload; null or an empty text asks for none. Throws
   * LogSettingError.
   */
  setFilters(text: string | null): void {
    this.apply({ ...this.settings, filters: parsed('log_filters', parseLogFilters, text) });
  }

  /** Opens what a new configuration asks for. Throws LogOpenError, and nothing has changed then. */
  prepare(configuration: Configuration): PreparedLogging {
    const { format, audit } = configuration.log;
    const change = this.writer.prepare({ format, outputs: this.outputsFor(configuration) });
    const before = this.auditFile;
    let auditFile: AuditFile | null;
    try {
      if (audit === null) auditFile = null;
      else auditFile = before?.path === audit ? before : this.openAudit(audit);
    } catch (error) {
      change.abandon();
      throw error;
    }
    const settings = this.settingsFor(configuration);
    this.changing = true;
    return {
      forWorkers: { ...settings, auditing: auditFile !== null },
      commit: () => {
        this.changing = false;
        change.commit();
        this.configuration = configuration;
        this.auditFile = auditFile;
        if (before !== auditFile) this.closeAudit(before);
        this.apply(settings);
      },
      abandon: () => {
        if (!this.changing) return;
        this.changing = false;
        change.abandon();
        if (before !== auditFile) auditFile?.close();
      },
    };
  }

  /** Records calls. Does nothing when auditing was turned off meanwhile. */
  audit(entries: readonly AuditEntry[]): void {
    this.auditFile?.write(entries);
  }

  /** Opens all files anew, for whoever has moved the old ones away. */
  reopen(): void {
    this.writer.reopen();
    this.auditFile?.reopen();
  }

  /** Writes out what waits; to call when the process ends. */
  flush(): void {
    this.writer.flush();
    this.auditFile?.flush();
  }

  private apply(settings: LogSettings): void {
    this.settings = settings;
    this.threshold.change(settings);
    this.onChange(this.forWorkers);
  }

  private settingsFor({ logging }: Configuration): LogSettings {
    const level = this.options.verbose ? Math.min(logging.level, 2) : logging.level;
    return {
      level: level as LogLevelNumber,
      filters: logging.filters,
    };
  }

  private outputsFor(configuration: Configuration): readonly LogOutput[] {
    const { outputs } = configuration.logging;
    return outputs.length === 0 ? this.defaults(configuration) : outputs;
  }

  private defaults({ mode, paths }: Configuration): readonly LogOutput[] {
    const { daemon, env } = this.options;
    const outputs = defaultOutputs({ daemon, env, mode, logFile: paths.logFile });
    const [{ kind }] = outputs;
    const hint = kind === 'file' ? homelessness(paths, paths.logFile) : '';
    if (hint !== '' && !existsSync(dirname(paths.logFile))) {
      throw new LogOpenError(`There is no place for the log '${paths.logFile}'.${hint}`);
    }
    return outputs;
  }

  private closeAudit(file: AuditFile | null): void {
    file?.close();
    this.closedDrops += file?.drops ?? 0;
  }

  private openAudit(path: string): AuditFile {
    return new AuditFile(path, (message) => this.writer.complain(message));
  }
}

function parsed<Value>(
  key: string,
  parse: (text: string) => Value[],
  text: string | null,
): readonly Value[] {
  try {
    return parse(text ?? '');
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    throw new LogSettingError(`${key} ${error.message}.`, { cause: error });
  }
}
