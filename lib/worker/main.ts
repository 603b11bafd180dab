/**
 * A worker process. It does nothing before the primary has sent its configuration, so that a worker that cannot work
 * costs the primary no more than a message sent later; then it serves the sockets it is handed.
 */
import { Socket } from 'node:net';
import { ControlChannel } from '../control/channel.js';
import type { PrimaryMessage, WorkerMessage } from '../control/messages.js';
import type { Worker } from './worker.js';

/** The descriptor of the control channel, beside node's own channel. */
const controlDescriptor = 4;

let worker: Worker | null = null;

const channel = new ControlChannel<WorkerMessage, PrimaryMessage>(
  new Socket({ fd: controlDescriptor, readable: true, writable: true }),
  (message) => {
    if (message.kind === 'configure') {
      void start(message);
    } else if (worker === null) {
      process.exit(0);
    } else {
      worker.told(message);
    }
  },
  // The primary is gone, and with it everything a worker is for.
  () => process.exit(0),
);

async function start(message: PrimaryMessage & { kind: 'configure' }): Promise<void> {
  const { Worker } = await import('./worker.js');
  worker = new Worker(message.configuration, message.logLevel, channel);
  process.on('message', (introduction, handle) => worker?.handed(introduction, handle));
  channel.send({ kind: 'ready' });
}

// The primary alone decides when workers end; signals to the whole process group are for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP', 'SIGUSR2'] as const) {
  process.on(signal, () => undefined);
}
