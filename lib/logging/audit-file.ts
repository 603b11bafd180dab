import { DescriptorCarrier } from './carriers.js';
import { LineQueue } from './line-queue.js';
import { LogOpenError } from './log-output.js';

/** How a call ended: `lost` means that no reply will come, so that nobody knows. */
export type AuditStatus = 'ok' | 'error' | 'lost';

/**
 * One call that changes something. Plain data: it goes from the worker to the primary, and as JSON
 * into the file.
 */
export interface AuditEntry {
  /** When the call was forwarded, as `2026-01-31T12:00:00.123Z`. */
  readonly time: string;
  /** The client's number, as in the log. */
  readonly client: number;
  readonly transport: string;
  readonly uid?: number;
  readonly user?: string;
  readonly pid?: number;
  readonly sasl_user?: string;
  readonly dn?: string;
  /** The far end of TCP and TLS. */
  readonly address?: string;
  readonly port?: number;
  readonly rights: 'read-write' | 'read-only';
  readonly procedure: string;
  /** The daemon that had the call; absent when none could be given it. */
  readonly daemon?: string;
  readonly status: AuditStatus;
  /** From the call's forwarding to its reply. */
  readonly duration_ms: number;
}

/**
 * The file of `[log] audit`: one JSON object a line. Workers send their entries to the primary
 * rather than write themselves, since a write may wait for the disk, and the relay must not. What
 * the file cannot take is counted.
 */
export class AuditFile {
  private readonly carrier: DescriptorCarrier;
  private readonly queue: LineQueue;

  /** `complain` is given what is to be said of the file in the log. Throws LogOpenError. */
  constructor(
    readonly path: string,
    private readonly complain: (message: string) => void,
  ) {
    try {
      this.carrier = DescriptorCarrier.file(path);
    } catch (error) {
      throw new LogOpenError(
        `Cannot open the audit file ${path}: ${(error as Error).message}; ` +
          'make its directory or change audit under [log] in virtproxyd-cluster.ini',
        { cause: error },
      );
    }
    this.queue = new LineQueue(this.carrier, {
      failing: ({ message }) => {
        complain(`cannot write to the audit file ${path}, its lines wait: ${message}`);
      },
      recovered: (lost) => {
        this.push({ time: new Date().toISOString(), lost });
        complain(`${lost} lines for the audit file ${path} are lost: it did not take them`);
      },
    });
  }

  get drops(): number {
    return this.queue.drops;
  }

  write(entries: readonly AuditEntry[]): void {
    for (const entry of entries) this.push(entry);
  }

  reopen(): void {
    try {
      this.carrier.reopen();
    } catch (error) {
      this.complain(
        `cannot open the audit file ${this.path} anew, the old one is written on: ${(error as Error).message}`,
      );
    }
  }

  flush(): void {
    this.queue.flush();
  }

  close(): void {
    this.queue.close();
  }

  private push(content: object): void {
    this.queue.push(Buffer.from(`${JSON.stringify(content)}\n`));
  }
}
