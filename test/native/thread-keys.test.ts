import { expect } from 'chai';
import { libcFunction } from '../../lib/native/library.js';
import { threadKeys } from '../../lib/native/thread-keys.js';

const create = libcFunction<(key: Buffer, destructor: null) => number>(
  'int pthread_key_create(void *key, void *destructor)',
);
const remove = libcFunction<(key: number) => number>('int pthread_key_delete(unsigned int key)');

describe('native/thread-keys', () => {
  it('counts keys that are taken and given back, to the last', () => {
    const { used, most } = threadKeys();
    expect(used).to.be.within(1, most / 2);
    const key = Buffer.alloc(4);
    const taken: number[] = [];
    try {
      while (create(key, null) === 0) {
        taken.push(key.readUInt32LE());
        if (taken.length === 10) expect(threadKeys().used).to.be.within(used + 10, most - 1);
      }
      expect(threadKeys()).to.deep.equal({ used: most, most });
    } finally {
      for (const number of taken) remove(number);
    }
    expect(threadKeys()).to.deep.equal({ used, most });
  });
});
