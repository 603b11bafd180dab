/**
 * Makes worker processes misbehave without a hook in the program: loaded into the proxy's processes
 * by NODE_OPTIONS, it acts in workers alone, on files in a directory and on a signal.
 */
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libcFunction } from '../../lib/native/library.js';
import { LoopMeter } from '../../lib/worker/reports/loop-meter.js';
import { threadKeys } from '../../lib/native/thread-keys.js';

const variable = 'STRESS_MISBEHAVIOUR';

/** The signal on which a worker does what it was ordered. */
const signal = 'SIGUSR1';

/**
 * `throw`: an exception nobody catches; `grow`: holds 128 MiB more than before; `exhaust`: takes
 * memory until there is none; `keys`: takes half of the thread keys; `hang`: never comes back.
 */
export type Order = 'throw' | 'grow' | 'exhaust' | 'keys' | 'hang';

/**
 * Crash `load`: before the program's first line; `start`: with its configuration. `wait`: it never
 * comes to that.
 */
export type Moment = 'load' | 'start' | 'wait';

/** The test's side: what to start the proxy with, and how to give orders. */
export class Misbehaviour {
  private readonly directory = mkdtempSync(join(tmpdir(), 'vp-'));

  /** Forgets all orders. */
  end(): void {
    rmSync(this.directory, { recursive: true });
  }

  /** `heapMegabytes` is the most memory a worker's heap may have. */
  env(heapMegabytes = 512): Record<string, string> {
    const options = `--import=${import.meta.url} --max-old-space-size=${heapMegabytes}`;
    return { NODE_OPTIONS: options, [variable]: this.directory };
  }

  /** Has all workers forked from now on fail, or not any more. */
  fail(moment: Moment, on: boolean): void {
    const file = join(this.directory, moment);
    if (on) writeFileSync(file, '');
    else rmSync(file, { force: true });
  }

  order(worker: number, order: Order): void {
    // A file for each: another's order must not be rewritten while it is read.
    writeFileSync(join(this.directory, `order-${worker}`), order);
    process.kill(worker, signal);
  }

  /** Whether a worker has begun to do what it was ordered last. */
  obeys(worker: number): boolean {
    return !existsSync(join(this.directory, `order-${worker}`));
  }

  /** When workers were forked, in milliseconds since the epoch. */
  forks(): number[] {
    const file = join(this.directory, 'forks');
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').map(Number) : [];
  }
}

const directory = process.env[variable];
if (directory !== undefined && process.argv[1]?.endsWith('/lib/worker/main.js') === true) {
  appendFileSync(join(directory, 'forks'), `${Date.now()}\n`);
  if (existsSync(join(directory, 'load'))) throw new Error('told to crash when loaded');
  const orders = join(directory, `order-${process.pid}`);
  process.on(signal, () => {
    const order = readFileSync(orders, 'utf8') as Order;
    rmSync(orders);
    obey(order);
  });
  // What a worker begins once it has its configuration.
  LoopMeter.prototype.restart = () => {
    if (existsSync(join(directory, 'wait'))) for (;;);
    if (existsSync(join(directory, 'start'))) throw new Error('told to crash at start');
  };
}

const growth: Buffer[] = [];

function obey(order: Order): void {
  switch (order) {
    case 'throw':
      throw new Error('told to throw');
    case 'grow':
      growth.push(Buffer.alloc(128 * 1024 * 1024, 1));
      break;
    case 'exhaust':
      exhaust();
      break;
    case 'keys':
      takeKeys();
      break;
    case 'hang':
      for (;;);
  }
}

function takeKeys(): void {
  const create = libcFunction<(key: Buffer, destructor: null) => number>(
    'int pthread_key_create(void *key, void *destructor)',
  );
  for (let left = threadKeys().most / 2; left > 0; left--) create(Buffer.alloc(4), null);
}

function exhaust(): never {
  const hoard: unknown[] = [];
  for (;;) hoard.push(new Array(1_000_000).fill(hoard.length));
}
