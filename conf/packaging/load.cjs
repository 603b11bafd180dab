'use strict';
/**
 * Loads a bundle of the program: see bundle.js, which puts this file beside them. Run as a program it writes the code
 * cache of one:
 *
 *   node load.js DIRECTORY
 */
const { readFileSync, writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { basename, join } = require('node:path');
const { Script } = require('node:vm');

const cacheOf = (directory) => join(directory, 'bundle.cache');

/** Undefined where there is none. V8 itself ignores one that another version of it made. */
function readCache(directory) {
  try {
    return readFileSync(cacheOf(directory));
  } catch {
    return undefined;
  }
}

function load(directory) {
  const file = join(directory, 'bundle.js');
  // The bundle is ASCII, of which a string of one byte each can be made at once.
  const source = readFileSync(file, 'latin1');
  // What stack traces call it. It is in the cache too, which is to be the same wherever it is made.
  const filename = join('dist/bundle', basename(directory), 'bundle.js');
  const script = new Script(source, { filename, cachedData: readCache(directory) });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(file), module, directory);
  return { script, exports: module.exports };
}

module.exports = (directory) => load(directory).exports;

if (require.main === module) {
  const [directory] = process.argv.slice(2);
  const { script, exports } = load(directory);
  exports.warm().then(() => writeFileSync(cacheOf(directory), script.createCachedData()));
}
