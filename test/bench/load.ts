import { ClientProcess, type ClientOptions } from '../peers/clients.js';
import { until } from '../peers/waiting.js';

export type LoadMode = 'calls' | 'opens' | 'download' | 'upload' | 'first';

/** Options of load-generator by their names without dashes; see load-generator.c. */
export type LoadOptions = Readonly<Record<string, string | number>>;

/** Microseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** What load-generator prints. */
export interface LoadResult {
  readonly clients: number;
  readonly inFlight: number;
  /** How long was measured. */
  readonly seconds: number;
  /** Calls, opened connections or streams in that time. */
  readonly count: number;
  /** The same, from before and after that time as well. */
  readonly total: number;
  readonly perSecond: number;
  readonly errors: number;
  readonly firstError: string | null;
  /** CPU time of the watched processes while it was measured. */
  readonly cpuSeconds: number;
  /** Microseconds of the machine's monotonic clock; in mode `first` only. */
  readonly firstAnswerAt: number;
  /** Null when nothing was counted. */
  readonly latency: Latency | null;
}

/** Runs a program that is killed when this process dies. */
export function startChild(command: readonly string[], options?: ClientOptions): ClientProcess {
  return new ClientProcess('setpriv', ['--pdeathsig', 'KILL', '--', ...command], options);
}

/** Starts the stand-in daemon; resolves when it listens. Rejects with its own words if it fails. */
export async function startStandIn(program: string, socket: string): Promise<ClientProcess> {
  const daemon = startChild([program, socket]);
  try {
    await until(() => daemon.stdout.includes('ready') || failed(daemon), {
      what: 'the stand-in daemon',
    });
    return daemon;
  } catch (error) {
    await daemon.kill();
    throw error;
  }
}

/** Throws what a program complains of. */
function failed(child: ClientProcess): false {
  if (child.stderr !== '') throw new Error(child.stderr);
  return false;
}

/** Starts load-generator; `result()` of what it returns tells what came of it. */
export function startLoad(
  generator: string,
  mode: LoadMode | 'idle' | 'unread',
  options: LoadOptions,
  processOptions?: ClientOptions,
): ClientProcess {
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  return startChild([generator, mode, ...words], processOptions);
}

/**
 * Rejects with the generator's own words when it failed. Errors of the peer are counted in the
 * result.
 */
export async function resultOf(load: ClientProcess): Promise<LoadResult> {
  const { code, stdout, stderr } = await load.finished;
  const line = stdout.trim().split('\n').at(-1);
  if (code !== 0 || line === undefined || line === '') {
    throw new Error(`The load generator ended with status ${code ?? 'none'}. It said: ${stderr}`);
  }
  return JSON.parse(line) as LoadResult;
}

/**
 * Runs load-generator to its end. Rejects when it failed or anything that it asked for went wrong.
 */
export async function runLoad(
  generator: string,
  mode: LoadMode,
  options: LoadOptions,
): Promise<LoadResult> {
  const result = await resultOf(startLoad(generator, mode, options));
  if (result.errors > 0) {
    throw new Error(`${mode}: ${result.errors} errors, the first: ${result.firstError ?? ''}`);
  }
  return result;
}

/** Opens clients and keeps them until `close()`. Rejects when one cannot be opened. */
export async function openIdleClients(
  generator: string,
  options: LoadOptions,
): Promise<{ close(): Promise<void> }> {
  const load = startLoad(generator, 'idle', options);
  const state = { ended: false };
  void load.finished.then(() => (state.ended = true));
  await until(() => load.stdout.includes('open\n') || state.ended, {
    what: 'idle clients to open',
    deadlineMs: 120_000,
  });
  const close = async (): Promise<void> => {
    load.end();
    const { errors, firstError } = await resultOf(load);
    if (errors > 0) throw new Error(`idle clients: ${errors} errors: ${firstError ?? ''}`);
  };
  if (state.ended) await close();
  return { close };
}
