import { logTarget, type LogOutput } from '../config/log-settings.js';
import { DatagramCarrier, DescriptorCarrier } from './carriers.js';
import { journalEntry, libvirtLine, syslogMessage, untimed } from './format.js';
import { LineQueue, type QueueEvents } from './line-queue.js';
import type { LogRecord } from './logger.js';

/** The sockets of the host's log services. */
export interface LogSockets {
  readonly syslog: string;
  readonly journal: string;
}

export const logSockets: LogSockets = {
  syslog: '/dev/log',
  journal: '/run/systemd/journal/socket',
};

/** A log or audit file cannot be opened; the sentence names it and says what to do. */
export class LogOpenError extends Error {
  readonly code = 'LOG_OPEN';
}

/**
 * A record as an output wants it. `json` is the line pino made of it, null where libvirt's format
 * is wanted.
 */
type Encode = (record: LogRecord, json: string | null) => Buffer;

const encodeLine: Encode = (record, json) => Buffer.from(json ?? libvirtLine(record));

/** One place that log lines go to. */
export class OpenOutput {
  private constructor(
    private readonly encode: Encode,
    private readonly carrier: DescriptorCarrier | DatagramCarrier,
    private readonly queue: LineQueue,
  ) {}

  /** `complain` is given what is to be said of this output. Throws LogOpenError. */
  static open(
    output: LogOutput,
    sockets: LogSockets,
    complain: (message: string) => void,
  ): OpenOutput {
    const target = logTarget(output);
    const events: QueueEvents = {
      failing: ({ message }) => complain(`cannot write to ${target}, its lines wait: ${message}`),
      recovered: (lost) => complain(`${lost} lines for ${target} are lost: it did not take them`),
    };
    try {
      const [encode, carrier] = parts(output, sockets);
      return new OpenOutput(encode, carrier, new LineQueue(carrier, events));
    } catch (error) {
      throw new LogOpenError(
        `Cannot open the log output ${target}: ${(error as Error).message}; ` +
          'make its directory or change log_outputs in virtproxyd.conf',
        { cause: error },
      );
    }
  }

  get drops(): number {
    return this.queue.drops;
  }

  write(record: LogRecord, json: string | null): void {
    this.queue.push(this.encode(record, json));
  }

  /**
   * Opens a file anew, and looks at what the standard error is now. Throws the system's error; the
   * old one stays.
   */
  reopen(): void {
    if (this.carrier instanceof DescriptorCarrier) this.carrier.reopen();
  }

  flush(): void {
    this.queue.flush();
  }

  close(): void {
    this.queue.close();
  }
}

function parts(
  output: LogOutput,
  sockets: LogSockets,
): [Encode, DescriptorCarrier | DatagramCarrier] {
  switch (output.kind) {
    case 'stderr':
      return [encodeLine, DescriptorCarrier.standardError()];
    case 'file':
      return [encodeLine, DescriptorCarrier.file(output.path)];
    case 'syslog':
      return [
        (record, json) => syslogMessage(record, output.name, json?.trimEnd() ?? untimed(record)),
        new DatagramCarrier(sockets.syslog),
      ];
    case 'journald':
      return [journalEntry, new DatagramCarrier(sockets.journal)];
  }
}
