import type { ControlChannel } from '../../control/channel.js';
import type { PrimaryMessage, WorkerMessage } from '../../control/messages.js';
import type { AuditEntry } from '../../logging/audit-file.js';
import type { LogRecord } from '../../logging/logger.js';
import type { AuditTrail } from './call-audit.js';

/** Bytes on their way to a primary that does not keep up, beyond which lines are dropped. */
const maxQueued = 4 * 1024 * 1024;

/** Sends a worker's log lines and audit entries to the primary, which writes them. */
export class LogSender implements AuditTrail {
  private entries: AuditEntry[] = [];
  private lost = 0;
  private total = 0;

  constructor(
    private readonly channel: ControlChannel<WorkerMessage, PrimaryMessage>,
    public on: boolean,
  ) {}

  readonly log = (record: LogRecord): void => {
    if (this.takes()) this.channel.send({ kind: 'log', record });
    else this.drop(1);
  };

  /** Lines and entries lost so far. */
  get drops(): number {
    return this.total;
  }

  /** All entries of one turn of the event loop go as one message. */
  record(entry: AuditEntry): void {
    this.entries.push(entry);
    if (this.entries.length === 1) setImmediate(() => this.flush());
  }

  flush(): void {
    const entries = this.entries.splice(0);
    if (entries.length === 0) return;
    if (this.takes()) this.channel.send({ kind: 'audit', entries });
    else this.drop(entries.length);
  }

  private drop(count: number): void {
    this.lost += count;
    this.total += count;
  }

  /**
   * Whether there is room. After a first loss there is none until half is through; then the loss is
   * told.
   */
  private takes(): boolean {
    const { queuedBytes } = this.channel;
    if (this.lost === 0) return queuedBytes <= maxQueued;
    if (queuedBytes > maxQueued / 2) return false;
    const message = `${this.lost} lines of this worker are lost: the primary did not take them`;
    this.lost = 0;
    const record = {
      time: Date.now(),
      pid: process.pid,
      component: 'daemon.worker',
      message,
    } as const;
    this.channel.send({ kind: 'log', record: { ...record, level: 'error' } });
    return true;
  }
}
