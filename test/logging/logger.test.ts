import { expect } from 'chai';
import { parseLogFilters, type LogLevelNumber } from '../../lib/config/log-settings.js';
import { Logger, LogThreshold, type LogRecord } from '../../lib/logging/logger.js';

const settings = (level: LogLevelNumber, filters = '') => ({
  level,
  filters: parseLogFilters(filters),
});

describe('logger', () => {
  let written: LogRecord[];
  const sink = (record: LogRecord): void => void written.push(record);
  /** The components of `names` that write each level. */
  const audible = (threshold: LogThreshold, ...names: string[]): string[] => {
    written = [];
    for (const name of names) {
      const log = new Logger(name, threshold, sink);
      for (const level of ['debug', 'info', 'warning', 'error'] as const) log[level]('x');
    }
    return written.map(({ component, level }) => `${component} ${level}`);
  };

  beforeEach(() => (written = []));

  it('writes what is of log_level or above', () => {
    expect(audible(new LogThreshold(settings(3)), 'pool')).to.deep.equal([
      'pool warning',
      'pool error',
    ]);
    expect(audible(new LogThreshold(settings(1)), 'pool')).to.have.lengthOf(4);
    expect(audible(new LogThreshold(settings(4)), 'pool')).to.deep.equal(['pool error']);
  });

  it('lets the first filter whose text is in a component’s name decide, upwards and downwards', () => {
    const threshold = new LogThreshold(settings(2, '4:pool 1:oo 3:list'));
    expect(audible(threshold, 'pool', 'tool', 'listener', 'session')).to.deep.equal([
      'pool error',
      ...['debug', 'info', 'warning', 'error'].map((level) => `tool ${level}`),
      'listener warning',
      'listener error',
      ...['info', 'warning', 'error'].map((level) => `session ${level}`),
    ]);
  });

  it('follows a change at once, in loggers made before', () => {
    const threshold = new LogThreshold(settings(3));
    const session = new Logger('session', threshold, sink);
    const relay = session.for('relay');
    expect([session.debugging, relay.debugging]).to.deep.equal([false, false]);
    threshold.change(settings(3, '1:relay'));
    expect([session.debugging, relay.debugging]).to.deep.equal([false, true]);
    threshold.change(settings(1, '2:relay'));
    expect([session.debugging, relay.debugging]).to.deep.equal([true, false]);
  });

  it('says who speaks, when and at what level', () => {
    const before = Date.now();
    new Logger('session', new LogThreshold(settings(2)), sink).info('hello');
    const [record] = written;
    expect(record).to.include({
      pid: process.pid,
      level: 'info',
      component: 'session',
      message: 'hello',
    });
    expect(record!.time).to.be.within(before, Date.now());
  });

  it('cuts what a peer made too long', () => {
    new Logger('session', new LogThreshold(settings(2)), sink).info('x'.repeat(20_000));
    expect(written[0]!.message).to.match(/^x{16384}… \(3616 more characters\)$/);
  });
});
