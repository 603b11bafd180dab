import type { Configuration } from '../../config/configuration.js';
import { isConfigured, isThere, socketPath } from '../../config/daemon-places.js';
import type { WorkerMessage } from '../../control/messages.js';
import type { Logger } from '../../logging/logger.js';
import * as accounts from '../../native/accounts.js';
import type { ClientRegistry } from '../clients/client-registry.js';
import type { PolkitQuestions } from '../clients/polkit-questions.js';
import type { WorkerProcess } from '../workers/worker-process.js';
import { Errands } from './errands.js';
import { knownRules, refusalOf, type KnownRules } from './permission.js';

type ConnectQuestion = Extract<WorkerMessage, { readonly kind: 'connect' }>;
type LookQuestion = Extract<WorkerMessage, { readonly kind: 'look' }>;

/**
 * Connects to daemons for workers that run as a user whom daemons do not let in, and passes them
 * the connected sockets. A worker names a client and a driver; where that driver's daemon is, and
 * which of its sockets the client may have, is decided here.
 */
export class DaemonBroker {
  private readonly errands = new Map<WorkerProcess, Errands>();
  private readonly rules = new WeakMap<Configuration, KnownRules>();

  constructor(
    private readonly clients: Pick<ClientRegistry, 'ofWorker'>,
    private readonly polkit: Pick<PolkitQuestions, 'hasGranted'>,
    private readonly log: Logger,
  ) {}

  /** To be called for a configuration before workers have it: looks up the names in [access]. */
  prepare(configuration: Configuration): void {
    this.rules.set(configuration, knownRules(configuration.access, accounts));
  }

  /** A worker wants a socket for a client. */
  onConnect(worker: WorkerProcess, question: ConnectQuestion): void {
    const { number, client, driver } = question;
    const { configuration } = worker;
    const fault = this.faultOf(worker, question);
    if (configuration === null || fault !== null) {
      const what = `worker ${worker.pid} asked for ${driver}'s daemon for client ${client}`;
      this.log.warning(`${what}, ${fault}: refused`);
      worker.send({ kind: 'unconnected', number, code: 'EACCES' });
      return;
    }
    const path = socketPath(configuration, driver, question.readOnly);
    this.errandsOf(worker).add({ number, path });
  }

  /** A worker wants to know whether a daemon's socket is there. */
  async onLook(worker: WorkerProcess, { number, driver, readOnly }: LookQuestion): Promise<void> {
    const { configuration } = worker;
    const exists =
      configuration !== null &&
      isConfigured(configuration, driver) &&
      (await isThere(socketPath(configuration, driver, readOnly)));
    worker.send({ kind: 'seen', number, exists });
  }

  onWorkerLost(worker: WorkerProcess): void {
    this.errands.get(worker)?.end();
    this.errands.delete(worker);
  }

  private faultOf(worker: WorkerProcess, question: ConnectQuestion): string | null {
    const { configuration } = worker;
    const rules = configuration === null ? undefined : this.rules.get(configuration);
    const client = this.clients.ofWorker(worker, question.client);
    if (configuration === null || rules === undefined) return 'before it had a configuration';
    if (client === undefined) return 'which it does not have';
    const hasGranted = this.polkit.hasGranted.bind(this.polkit);
    return refusalOf(client, question, configuration, rules, hasGranted);
  }

  private errandsOf(worker: WorkerProcess): Errands {
    let errands = this.errands.get(worker);
    if (errands === undefined) {
      errands = new Errands(worker, this.log);
      this.errands.set(worker, errands);
    }
    return errands;
  }
}
