import { expect } from 'chai';
import { type CommandLine, parseCommandLine, UsageError } from '../../lib/cli/options.js';

describe('the command line', () => {
  const cases: [args: string[], expected: Partial<CommandLine>][] = [
    [['--verb'], { verbose: true, version: false }],
    [['--vers'], { version: true, verbose: false }],
    [['--d', '--h'], { daemon: true, help: true }],
    [['--pid-f=/run/p'], { pidFile: '/run/p' }],
    [['--p', '/run/p'], { pidFile: '/run/p' }],
    [['--con=a=b'], { config: 'a=b' }],
    [['--ch'], { checkConfig: true }],
    [['--t=7'], { timeoutSeconds: 7 }],
    [['--timeout', '0'], { timeoutSeconds: 0 }],
    [['-t0'], { timeoutSeconds: 0 }],
    [[], { timeoutSeconds: 0, config: null, pidFile: null }],
  ];
  for (const [args, expected] of cases) {
    it(`takes ${args.join(' ') || 'nothing'}`, () => {
      expect(parseCommandLine(args)).to.include(expected);
    });
  }

  const faults: [args: string[], message: string][] = [
    [['--ver'], "option '--ver' is ambiguous; possibilities: '--verbose' '--version'"],
    [['--c=x'], "option '--c' is ambiguous; possibilities: '--config' '--check-config'"],
    [['--verbosely'], "Unknown option '--verbosely'"],
    [['--', '--verb'], "unexpected argument '--verb'"],
    [['--verb=1'], "'-v, --verbose' does not take an argument"],
    [['--timeout=-1'], "'-1' is no number of seconds from 0 to 2147483"],
    [['--timeout=2147484'], "'2147484' is no number of seconds"],
  ];
  for (const [args, message] of faults) {
    it(`refuses ${args.join(' ')}`, () => {
      expect(() => parseCommandLine(args)).to.throw(UsageError, message);
    });
  }
});
