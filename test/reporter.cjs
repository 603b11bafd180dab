// mocha's own report, then one line that says how it all went. What a test has left behind fails the run.
const { readdirSync, readFileSync } = require('node:fs');
const { Spec } = require('mocha').reporters;

/** Milliseconds that the process may live on after the last test before what keeps it is named and it is ended. */
const patience = 30_000;

/** Milliseconds that programs started by tests may take to end, and between looks at them. */
const endTime = 5000;
const lookInterval = 50;

module.exports = class ClosingLine extends Spec {
  constructor(runner, options) {
    super(runner, options);
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats;
      process.stdout.write(`${passes} passed, ${failures} failed, ${pending} skipped\n`);
      setTimeout(() => {
        const open = process.getActiveResourcesInfo().join(', ');
        process.stdout.write(`A test left something open: ${open}\n`);
        process.exit(1);
      }, patience).unref();
      process.once('exit', () => {
        const left = remainingChildren();
        if (left.length === 0) return;
        process.stdout.write(`A test left processes running: ${left.join(', ')}\n`);
        process.exit(1);
      });
    });
  }
};

/** Programs started by tests that do not end in time, as `PID (NAME)`. */
function remainingChildren() {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  const end = Date.now() + endTime;
  for (;;) {
    const left = children();
    if (left.length === 0 || Date.now() > end) return left;
    Atomics.wait(sleeper, 0, 0, lookInterval);
  }
}

function children() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const [, name, state, parent] =
        /^\d+ \((.*)\) (\S) (\d+) /s.exec(textOf(`/proc/${pid}/stat`)) ?? [];
      return Number(parent) === process.pid && state !== 'Z' ? [`${pid} (${name})`] : [];
    });
}

function textOf(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // The process ended while we looked.
    return '';
  }
}
