import { expect } from 'chai';
import { parseConf } from '../../lib/config/grammar.js';

const FILE = '/etc/libvirt/virtproxyd.conf';

const values = (text: string): unknown[] => {
  const { entries, problems } = parseConf(text, FILE);
  expect(problems).to.deep.equal([]);
  return entries.map(({ key, value, line }) => [key, value, line]);
};

const messages = (text: string): string[] =>
  parseConf(text, FILE).problems.map(({ message }) => message);

describe('virtproxyd.conf grammar', () => {
  it('reads integers with and without a sign', () => {
    expect(values('a = 5\nb=-1\nc = +7\nd = 0777\n')).to.deep.equal([
      ['a', 5, 1],
      ['b', -1, 2],
      ['c', 7, 3],
      ['d', 777, 4],
    ]);
  });

  it('reads all kinds of strings, in which a backslash is an ordinary character', () => {
    const text = `a = "it's"\nb = 'say "hi"'\nc = "C:\\n\\\\"\nd = ""\ne = """two\n"lines\\" """\nf = 1\n`;
    expect(values(text)).to.deep.equal([
      ['a', "it's", 1],
      ['b', 'say "hi"', 2],
      ['c', 'C:\\n\\\\', 3],
      ['d', '', 4],
      ['e', 'two\n"lines\\" ', 5],
      ['f', 1, 7],
    ]);
  });

  it('reads lists over several lines, with a trailing comma or empty', () => {
    const text = `a = [ "x", 'y' ]\nb = [\n  "x" ,\n\n  "y",\n]\nc = []\nd = [ 1, [ "n" ] ]\n`;
    expect(values(text)).to.deep.equal([
      ['a', ['x', 'y'], 1],
      ['b', ['x', 'y'], 2],
      ['c', [], 7],
      ['d', [1, ['n']], 8],
    ]);
  });

  it('skips comments and blank lines, and takes ; and CRLF as ends of statements', () => {
    const text = '# head\r\n\r\n  a = 1 # one\r\nb = 2 ; c = 3;\n\t# tail\n  \nd = "#" ';
    expect(values(text)).to.deep.equal([
      ['a', 1, 3],
      ['b', 2, 4],
      ['c', 3, 4],
      ['d', '#', 7],
    ]);
  });

  it('takes a file without statements', () => {
    for (const text of ['', '\n \n', '# only a comment', '   ']) {
      expect(values(text)).to.deep.equal([]);
    }
  });

  const faults: [text: string, line: number, sentence: string][] = [
    ['listen_tcp 1\n', 1, 'expecting an assignment'],
    ['a = 1\n\nlisten_tcp\n', 3, 'expecting an assignment'],
    ['9a = 1\n', 1, 'expecting a name'],
    ['a.b = 1\n', 1, 'expecting an assignment'],
    ['a =\n1\n', 1, 'expecting a value'],
    ['a = yes\n', 1, 'expecting a value'],
    ['a = -\n', 1, 'unterminated number'],
    ['a = 1x\n', 1, 'expecting a separator'],
    ['a = 1 b = 2\n', 1, 'expecting a separator'],
    ['a = "x\\"y"\n', 1, 'expecting a separator'],
    ['a = "x\nb"\n', 1, 'unterminated string'],
    ["a = 'x", 1, 'unterminated string'],
    ['a = """x\ny', 1, 'unterminated string'],
    ['a = [ "x"\n"y" ]\n', 2, 'expecting a separator in list'],
    ['a = [ "x", # no\n "y" ]\n', 1, 'expecting a value'],
    ['a = [ , "x" ]\n', 1, 'expecting a value'],
    ['a = [ "x"\n', 2, 'list is not closed'],
    ['a = [', 1, 'list is not closed'],
  ];
  for (const [text, line, sentence] of faults) {
    it(`refuses ${JSON.stringify(text)} in line ${line}`, () => {
      expect(messages(text)[0]).to.match(new RegExp(`^${FILE}:${line}: ${sentence}`));
    });
  }

  it('goes on after an error at the next assignment and reports every one', () => {
    const text = `a 1\nb = 2\nc = [ "x"\n  "y",\n  "d = 5",\n]\n# note\ne = "x\nf = 6\ng = [ 1,\nh = 8\n`;
    const { entries, problems } = parseConf(text, FILE);
    expect(entries.map(({ key, line }) => [key, line])).to.deep.equal([
      ['b', 2],
      ['f', 9],
      ['h', 11],
    ]);
    expect(problems.map(({ key, line }) => [key, line])).to.deep.equal([
      ['a', 1],
      ['c', 4],
      ['e', 8],
      ['g', 11],
    ]);
  });

  it('ends on every beginning of a file, in linear time', () => {
    const text = `a = [ "x", 'y' ]\nb = """\n"""\nc = -1 # c\n`;
    for (let end = 0; end <= text.length; end += 1) parseConf(text.slice(0, end), FILE);
    const broken = 'a = [ "x" "y"\n'.repeat(20_000);
    expect(parseConf(broken, FILE).problems).to.have.length(20_000);
  });
});
