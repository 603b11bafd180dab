import { pino, destination as openDestination, type DestinationStream } from 'pino';
import type { LogRecord, LogSink } from './logger.js';

export const logFormats = ['libvirt', 'json'] as const;
export type LogFormat = (typeof logFormats)[number];

/** Bytes of lines that may wait for a slow reader; what comes beyond is dropped rather than kept in memory. */
const maxWaiting = 4 * 1024 * 1024;

/** Line breaks and other control characters of a peer's text must not forge lines. */
const controlCharacters = /[\u0000-\u001f\u007f]/g;

const escapeControl = (text: string): string =>
  text.replace(controlCharacters, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);

/** `2026-01-31 12:00:00.123+0000: 4711: info : component : message`, as libvirt's daemons write. */
export function formatLine({ time, pid, level, component, message }: LogRecord): string {
  const when = new Date(time).toISOString().replace('T', ' ').replace('Z', '+0000');
  return `${when}: ${pid}: ${level} : ${component} : ${escapeControl(message)}\n`;
}

/** A destination for pino that takes the record itself and writes it in libvirt's format rather than as JSON. */
function libvirtLines(out: DestinationStream): DestinationStream {
  const lines = {
    [Symbol.for('pino.metadata')]: true,
    lastObj: null as { readonly record: LogRecord } | null,
    write(): void {
      if (lines.lastObj !== null) out.write(formatLine(lines.lastObj.record));
    },
  };
  return lines;
}

/** Where all lines of all processes end: one writer in the primary, so that lines never interleave. */
export interface LogWriter {
  readonly write: LogSink;
  /** Writes out what waits; call before the process ends. */
  flush(): void;
}

/** Writes to the descriptor `fd`, the standard error by default. */
export function openLogWriter(format: LogFormat, fd = 2): LogWriter {
  const out = openDestination({ dest: fd, sync: false, maxLength: maxWaiting });
  out.on('error', () => {
    // A reader that is gone must not take the daemon with it.
  });
  const log = pino(
    {
      customLevels: { debug: 20, info: 30, warning: 40, error: 50 },
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
    format === 'json' ? out : libvirtLines(out),
  );
  return {
    write: (record) => {
      log[record.level]({ record });
    },
    flush: () => {
      try {
        out.flushSync();
      } catch {
        // Not writable any more: nothing left to save.
      }
    },
  };
}

function jsonFields({ time, pid, component, message }: LogRecord): Record<string, unknown> {
  return { time: new Date(time).toISOString(), pid, component, message };
}
