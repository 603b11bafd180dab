/**
 * Makes what bin/virtproxyd runs: one file for each of the program's two entry points, and V8's code cache for it. A
 * start takes a good third less processor time with these than with all the modules and packages one by one.
 *
 *   node conf/packaging/bundle.js [DIRECTORY]
 *
 * DIRECTORY is where the program was compiled into; dist. Its `bundle` has the layout of its `lib`, so that a module's
 * relative URLs hold in both: those of package.json, conf, the packages, and the other entry point.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));
const library = join(root, 'lib');
const compiled = resolve(process.argv[2] ?? join(root, 'dist'));
const output = join(compiled, 'bundle');

/** Each with the modules that it loads at every start, once it has begun: the code cache has them too. */
const entries = [
  { entry: 'cli/main', next: 'cli/run-daemon' },
  { entry: 'worker/main', next: 'worker/worker' },
];

/** Stay packages of their own: one is native, the others are not needed on every host, or later. */
const external = ['koffi', 'dbus-native', 'pidusage', 'prom-client'];

/** Gives each module the URL of the file that it would be in the bundle's directory. */
const moduleUrls = {
  name: 'module-urls',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const module = JSON.stringify(`../${relative(library, path).replace(/ts$/, 'js')}`);
      const url = `require('node:url').pathToFileURL(require('node:path').join(__dirname, ${module})).href`;
      return {
        contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', url),
        loader: 'ts',
      };
    });
  },
};

/** The one function that throng wants of lodash, whose whole would be half of the bundle. */
const leanLodash = {
  name: 'lean-lodash',
  setup({ onLoad }) {
    onLoad({ filter: /node_modules\/lodash\/lodash\.js$/ }, () => ({
      contents: `exports.defaultsDeep = require('./defaultsDeep.js');`,
    }));
  },
};

/** Resolves with the directories of the packages that are in the bundle. */
async function bundle({ entry, next }) {
  const { metafile } = await build({
    absWorkingDir: root,
    stdin: {
      contents: `export const load = () => import('./${entry}.js');
                 export const warm = () => import('./${next}.js');`,
      resolveDir: library,
    },
    outfile: join(output, dirname(entry), 'bundle.js'),
    bundle: true,
    platform: 'node',
    target: 'node20.19',
    format: 'cjs',
    // What load.js gives it; and modules are strict.
    banner: { js: `(function (exports, require, module, __dirname) { 'use strict';` },
    footer: { js: '})' },
    // Modules of the bundle that are loaded later, and packages beside it.
    supported: { 'dynamic-import': false },
    external,
    plugins: [moduleUrls, leanLodash],
    metafile: true,
    logLevel: 'warning',
  });
  return Object.keys(metafile.inputs)
    .map((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0])
    .filter((directory) => directory !== undefined);
}

/** The licences of packages, whose code must not go without them. */
function licencesOf(packages) {
  return [...new Set(packages)].sort().map((directory) => {
    const { name, version, license } = JSON.parse(
      readFileSync(join(root, directory, 'package.json'), 'utf8'),
    );
    const file = readdirSync(join(root, directory)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file === undefined ? '' : readFileSync(join(root, directory, file), 'utf8').trim();
    return `${name} ${version} (${license})\n\n${text}`.trim();
  });
}

/** Compiles a bundle, loads what a start loads, and keeps what V8 has then. */
function makeCodeCache({ entry }) {
  const load = join(output, 'load.js');
  // V8 would put another number into the cache each time.
  const args = ['--random-seed=1', load, join(output, dirname(entry))];
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`there is no code cache for ${entry}`);
}

rmSync(output, { recursive: true, force: true });
mkdirSync(join(output, 'metrics/page'), { recursive: true });
writeFileSync(join(output, 'package.json'), '{ "type": "commonjs" }\n');
copyFileSync(join(root, 'conf/packaging/load.cjs'), join(output, 'load.js'));
copyFileSync(join(compiled, 'lib/metrics/page/script.js'), join(output, 'metrics/page/script.js'));
const packages = [];
for (const each of entries) {
  packages.push(...(await bundle(each)));
  const start = `module.exports = require('../load.js')(__dirname).load();\n`;
  writeFileSync(join(output, `${each.entry}.js`), start);
  makeCodeCache(each);
}
const separator = `\n\n${'-'.repeat(80)}\n\n`;
writeFileSync(join(output, 'packages.txt'), `${licencesOf(packages).join(separator)}\n`);
