import { closeSync } from 'node:fs';
import { receive } from '../../lib/native/descriptor-passing.js';
import { boundDatagramSocket } from '../native/sockets.js';
import { until } from './waiting.js';

/** Room for the longest datagram a sender may send. */
const buffer = Buffer.alloc(256 * 1024);

/** Listens in the place of syslog or journald, and keeps what it is sent. */
export class DatagramRecorder {
  private readonly fd: number;
  private readonly received: string[] = [];

  /** There must be no file at `path`. */
  constructor(path: string) {
    this.fd = boundDatagramSocket(path);
  }

  /** All datagrams so far, oldest first. */
  get datagrams(): readonly string[] {
    for (;;) {
      const next = receive(this.fd, buffer, 0, buffer.length);
      if (next === 'would-block') return this.received;
      this.received.push(buffer.toString('utf8', 0, next.bytes));
    }
  }

  /** The first datagram that matches, now or when it arrives. */
  found(pattern: RegExp): Promise<string> {
    return until(() => this.datagrams.find((datagram) => pattern.test(datagram)), {
      what: `a datagram with ${pattern.source}`,
    });
  }

  close(): void {
    closeSync(this.fd);
  }
}
