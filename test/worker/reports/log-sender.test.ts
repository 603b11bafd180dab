import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { ControlChannel } from '../../../lib/control/channel.js';
import type { PrimaryMessage, WorkerMessage } from '../../../lib/control/messages.js';
import type { AuditEntry } from '../../../lib/logging/audit-file.js';
import type { LogRecord } from '../../../lib/logging/logger.js';
import { TextStream } from '../../control/text-stream.js';
import { LogSender } from '../../../lib/worker/reports/log-sender.js';

const record = (message: string): LogRecord => ({
  time: 0,
  pid: 7,
  level: 'info',
  component: 'session',
  message,
});
const entry = (client: number): AuditEntry => ({
  time: '2026-01-31T12:00:00.000Z',
  client,
  transport: 'unix',
  rights: 'read-write',
  procedure: 'DOMAIN_CREATE',
  status: 'ok',
  duration_ms: 1,
});

describe('a worker’s log lines on their way to the primary', () => {
  let stream: TextStream;
  let sender: LogSender;
  const taken = (): WorkerMessage[] =>
    stream.taken
      .join('')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as WorkerMessage);

  beforeEach(() => {
    stream = new TextStream();
    const ignore = (): void => undefined;
    const channel = new ControlChannel<WorkerMessage, PrimaryMessage>(stream, ignore, ignore);
    sender = new LogSender(channel, true);
  });

  it('go one by one, audit entries of one turn together', async () => {
    sender.log(record('a'));
    sender.record(entry(1));
    sender.record(entry(2));
    sender.log(record('b'));
    for (let turn = 0; turn < 3; turn++) await nextTurn();
    sender.record(entry(3));
    sender.flush();
    await nextTurn();
    expect(taken()).to.deep.equal([
      { kind: 'log', record: record('a') },
      { kind: 'log', record: record('b') },
      { kind: 'audit', entries: [entry(1), entry(2)] },
      { kind: 'audit', entries: [entry(3)] },
    ]);
  });

  it('are dropped and counted while the primary takes none', async () => {
    stream.stick();
    const long = 'x'.repeat(10_000);
    for (let count = 0; count < 1000; count++) sender.log(record(long));
    sender.record(entry(1));
    sender.flush();
    await nextTurn();
    stream.release();
    await nextTurn();
    const kept = taken().length;
    expect(kept).to.be.within(400, 450);
    sender.log(record('after'));
    await nextTurn();
    expect(taken()).to.have.lengthOf(kept + 2);
    const [told, after] = taken().slice(-2);
    expect(told).to.have.nested.property('record.level', 'error');
    expect(told).to.have.nested.property(
      'record.message',
      `${1001 - kept} lines of this worker are lost: the primary did not take them`,
    );
    expect(after).to.deep.equal({ kind: 'log', record: record('after') });
  });
});
