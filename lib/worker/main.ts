/**
 * A worker process. It does nothing before the primary has sent its configuration, so that a worker
 * that cannot work costs the primary no more than a message sent later; then it serves the sockets
 * it is handed.
 *
 * The room around those of clients, relays, daemons and reports: what a whole process has enters
 * here, such as its sessions and what they share, and what belongs to one client goes further in.
 */
import { ControlChannel } from '../control/channel.js';
import type { PrimaryMessage, WorkerMessage, WorkerSetup } from '../control/messages.js';
import { workerDescriptors } from '../control/worker-stdio.js';
import { endWithParent } from '../native/process-info.js';
import { releaseAfterStart } from '../native/start-pages.js';
import { SocketStream } from '../transport/socket-stream.js';
import { LoopMeter } from './reports/loop-meter.js';
import type { Worker } from './worker.js';

// A worker that hangs would not notice the end of its channel.
endWithParent();

const loop = new LoopMeter();
let worker: Worker | null = null;
/** What was said while the worker was being made. */
const early: PrimaryMessage[] = [];

const channel = new ControlChannel<WorkerMessage, PrimaryMessage>(
  SocketStream.opened(workerDescriptors.control, false),
  (message) => {
    if (message.kind === 'heartbeat') channel.send({ kind: 'alive', utilisation: loop.look() });
    else if (message.kind === 'configure') void start(message);
    else if (worker !== null) worker.onMessage(message);
    else early.push(message);
  },
  // The primary is gone, and with it everything a worker is for.
  () => process.exit(0),
);

// What was said in the turn in which a worker ends, be it by a fault, is not lost with it.
process.on('exit', () => channel.flush(() => undefined));

async function start(setup: WorkerSetup): Promise<void> {
  const { Worker } = await import('./worker.js');
  const started = await Worker.start(setup, channel);
  worker = started;
  loop.restart();
  channel.send({ kind: 'ready' });
  for (const message of early) started.onMessage(message);
  releaseAfterStart();
}

// The primary alone decides when workers end; signals to the whole process group are for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP', 'SIGUSR2'] as const) {
  process.on(signal, () => undefined);
}
