import type { LogLevel, LogRecord } from './logger.js';

export type LogFormat = 'libvirt' | 'json';

/** The name under which syslog and journald know the program. */
const identifier = 'virtproxyd';

/**
 * Line breaks and other control characters of a peer's text must not forge lines or drive a
 * terminal.
 */
const controlCharacters = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

function escapeControl(text: string): string {
  return text.replace(controlCharacters, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** `2026-01-31 12:00:00.123+0000: 4711: info : component : message`, as libvirt's daemons write. */
export function libvirtLine(record: LogRecord): string {
  const when = new Date(record.time).toISOString().replace('T', ' ').replace('Z', '+0000');
  return `${when}: ${record.pid}: ${untimed(record)}\n`;
}

/** `level : component : message` in one line, for where others add time and process. */
export function untimed({ level, component, message }: LogRecord): string {
  return `${level} : ${component} : ${escapeControl(message)}`;
}

/** What a JSON line holds beside the level. */
export function jsonFields({ time, pid, component, message }: LogRecord): Record<string, unknown> {
  return { time: new Date(time).toISOString(), pid, component, message };
}

/** syslog's severities (syslog(3)). */
const severities = {
  debug: 7,
  info: 6,
  warning: 4,
  error: 3,
} as const satisfies Record<LogLevel, number>;

/** LOG_DAEMON as a number of its own, not yet shifted. */
const daemonFacility = 3;

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');

/** A datagram for /dev/log as syslog(3) sends it, with local time and the process that speaks. */
export function syslogMessage({ time, pid, level }: LogRecord, name: string, text: string): Buffer {
  const when = new Date(time);
  const month = months[when.getMonth()] ?? '';
  const day = String(when.getDate()).padStart(2);
  const clock = [when.getHours(), when.getMinutes(), when.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
  const priority = daemonFacility * 8 + severities[level];
  return Buffer.from(`<${priority}>${month} ${day} ${clock} ${name}[${pid}]: ${text}`);
}

/**
 * A datagram for journald (systemd.journal-fields(7), "Native Protocol"). LIBVIRT_SOURCE and
 * CODE_FUNC are where libvirt's daemons say which part of them speaks. No value holds a line feed,
 * so the simple form serves.
 */
export function journalEntry({ pid, level, component, message }: LogRecord): Buffer {
  const fields = {
    MESSAGE: escapeControl(message),
    PRIORITY: severities[level],
    SYSLOG_FACILITY: daemonFacility,
    SYSLOG_IDENTIFIER: identifier,
    SYSLOG_PID: pid,
    LIBVIRT_SOURCE: component,
    CODE_FUNC: component,
  };
  return Buffer.from(
    Object.entries(fields)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
  );
}
