import { expect } from 'chai';
import { matches, parseLogFilters, parseLogOutputs } from '../../lib/config/log-settings.js';
import { ValueError } from '../../lib/config/values.js';

describe('the grammar of log_filters and log_outputs', () => {
  it('reads filters in their order', () => {
    expect(parseLogFilters(' 1:session  4:transport.tls\n')).to.deep.equal([
      { level: 1, match: 'session' },
      { level: 4, match: 'transport.tls' },
    ]);
    expect(parseLogFilters('')).to.deep.equal([]);
  });

  it('reads what libvirtd 9.0 takes as well', () => {
    expect(parseLogFilters('1:+util 04:a:b +2:c 1:*')).to.deep.equal([
      { level: 1, match: 'util' },
      { level: 4, match: 'a' },
      { level: 2, match: 'c' },
      { level: 1, match: '*' },
    ]);
    expect(parseLogOutputs('04:file:a/log', '/x')).to.deep.equal([
      { level: 4, kind: 'file', path: '/x/a/log' },
    ]);
  });

  const globs = [
    ['rpc', ['rpc.relay'], ['remote.daemon']],
    ['*', ['rpc.relay', 'x'], []],
    ['*pc*', ['rpc.relay'], ['remote.daemon']],
    ['r*d', ['remote.daemon'], ['rpc.relay', 'd.r']],
    ['r?c.', ['rpc.relay', 'a.rxc.'], ['rc.relay', 'rpcx']],
    ['?rpc', ['x.rpc'], ['rpc.relay']],
    ['a*b*a', ['xabax', 'aba'], ['ab', 'ba', 'bab']],
    ['a.c', ['a.c'], ['abc']],
    ['[a]', ['x[a]'], ['a']],
  ] as const;
  for (const [glob, names, others] of globs) {
    it(`matches the glob ${glob} with open ends`, () => {
      expect(names.filter((name) => !matches(glob, name))).to.deep.equal([]);
      expect(others.filter((name) => matches(glob, name))).to.deep.equal([]);
    });
  }

  it('reads every kind of output', () => {
    const text = '1:stderr 2:journald 3:syslog:virtproxyd 4:file:/var/log/a:b.log';
    expect(parseLogOutputs(text)).to.deep.equal([
      { level: 1, kind: 'stderr' },
      { level: 2, kind: 'journald' },
      { level: 3, kind: 'syslog', name: 'virtproxyd' },
      { level: 4, kind: 'file', path: '/var/log/a:b.log' },
    ]);
    expect(parseLogOutputs(' ')).to.deep.equal([]);
  });

  for (const item of ['x', '1', '1:', '0:a', '5:a', ':a', 'debug:a', '1:+', '1::a', '-1:a']) {
    it(`refuses the filter ${item}`, () => {
      expect(() => parseLogFilters(`1:good ${item}`)).to.throw(ValueError, `"${item}"`);
    });
  }

  it('takes what C takes: a sign and zeros, more than it needs in a filter, relative files', () => {
    expect(parseLogFilters('+1:a:b 02:+c')).to.deep.equal([
      { level: 1, match: 'a' },
      { level: 2, match: 'c' },
    ]);
    expect(parseLogOutputs('+1:file:a/b 02:syslog:', '/srv')).to.deep.equal([
      { level: 1, kind: 'file', path: '/srv/a/b' },
      { level: 2, kind: 'syslog', name: 'virtproxyd' },
    ]);
  });

  const outputs = ['x', '1', '0:stderr', '1:stderr:x', '1:journald:', '1:syslog'];
  for (const item of [...outputs, '1:file', '1:file:', '1:tape:/x']) {
    it(`refuses the output ${item}`, () => {
      expect(() => parseLogOutputs(`4:stderr ${item}`)).to.throw(ValueError, `"${item}"`);
    });
  }
});
