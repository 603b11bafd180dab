// mocha's own report, then one line that says how it all went.
const { Spec } = require('mocha').reporters;

/** Milliseconds that the process may live on after the last test before what keeps it is named and it is ended. */
const patience = 30_000;

module.exports = class ClosingLine extends Spec {
  constructor(runner, options) {
    super(runner, options);
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats;
      process.stdout.write(`${passes} passed, ${failures} failed, ${pending} skipped\n`);
      setTimeout(() => {
        const open = process.getActiveResourcesInfo().join(', ');
        process.stdout.write(`A test left something open: ${open}\n`);
        process.exit(failures > 0 ? 1 : 0);
      }, patience).unref();
    });
  }
};
