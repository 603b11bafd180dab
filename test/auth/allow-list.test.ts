import { expect } from 'chai';
import { matchesAny } from '../../lib/auth/allow-list.js';

describe('auth/allow-list', () => {
  const table: [pattern: string, matching: string[], others: string[]][] = [
    ['fred', ['fred'], ['Fred', 'fre', 'freddy', '']],
    ['', [''], ['x']],
    ['*', ['', 'anything', 'a@B'], []],
    ['**', ['', 'x'], []],
    ['?', ['x', 'é', '😀', '*'], ['', 'xx']],
    ['*@EXAMPLE.COM', ['a@EXAMPLE.COM', '@EXAMPLE.COM'], ['a@example.com', 'a@EXAMPLE.COM.ORG']],
    ['libvirt/*@X', ['libvirt/host@X', 'libvirt/@X'], ['libvirt@X']],
    ['C=GB,*,CN=host?', ['C=GB,L=London,CN=host1'], ['C=GB,CN=host1', 'C=GB,L=London,CN=host10']],
    ['a*b*c', ['abc', 'aXbYbZc', 'abcbc'], ['acb', 'ab', 'abcd']],
    ['a?*', ['ab', 'abc'], ['a']],
    ['[ab]', ['[ab]'], ['a', 'b']],
    ['a\\*', ['a\\', 'a\\x'], ['a*']],
    ['*/*', ['a/b', '/'], ['ab']],
  ];
  for (const [pattern, matching, others] of table) {
    it(`matches ${JSON.stringify(pattern)} as libvirt does`, () => {
      for (const text of matching) expect(matchesAny([pattern], text), text).to.be.true;
      for (const text of others) expect(matchesAny([pattern], text), text).to.be.false;
    });
  }

  it('lets in whom any pattern names, and nobody with an empty list', () => {
    expect(matchesAny(['joe', 'f*'], 'fred')).to.be.true;
    expect(matchesAny(['joe', 'g*'], 'fred')).to.be.false;
    expect(matchesAny([], 'fred')).to.be.false;
    expect(matchesAny([], '')).to.be.false;
  });

  it('is quick with a pattern made to go back often', () => {
    const start = performance.now();
    expect(matchesAny(['*a'.repeat(50) + 'b'], 'a'.repeat(5000))).to.be.false;
    expect(performance.now() - start, 'milliseconds').to.be.below(500);
  });
});
