import type { PolkitAuthority, PolkitRequest } from '../../auth/polkit.js';
import type { LocalPeer } from '../../control/messages.js';
import type { Logger } from '../../logging/logger.js';
import type { WorkerProcess } from '../workers/worker-process.js';
import type { Client, ClientRegistry } from './client-registry.js';

/** Whom polkit is asked by; loaded when the first client needs it. */
type Authority = Pick<PolkitAuthority, 'check'>;

/**
 * Asks polkit about clients, for their workers: polkitd answers whoever asks about others only if
 * that is root. A worker names a client and nothing else; what polkit is told of it is what the
 * kernel said when it connected.
 */
export class PolkitQuestions {
  private authority: Authority | null;
  /** Clients that polkit has let in. */
  private readonly granted = new WeakSet<Client>();

  constructor(
    private readonly clients: Pick<ClientRegistry, 'ofWorker'>,
    /** Milliseconds for one check, typing a password included. */
    private readonly timeout: () => number,
    private readonly log: Logger,
    authority: Authority | null = null,
  ) {
    this.authority = authority;
  }

  /** A worker wants to know whether polkit lets a client in. */
  async ask(worker: WorkerProcess, id: number): Promise<void> {
    const client = this.clients.ofWorker(worker, id);
    const fault = faultOf(client);
    if (client === undefined || fault !== null) {
      this.log.warning(`worker ${worker.pid} asked polkit about client ${id}, ${fault}: refused`);
      return;
    }
    const leaving = new AbortController();
    client.onLeft = () => leaving.abort();
    const refusal = await this.refusalOf(client, leaving.signal);
    if (leaving.signal.aborted) return;
    client.onLeft = null;
    if (refusal === null) this.granted.add(client);
    worker.send({ kind: 'polkit', id, refusal });
  }

  /** Whether polkit has let a client in. */
  hasGranted(client: Client): boolean {
    return this.granted.has(client);
  }

  private async refusalOf({ introduction }: Client, signal: AbortSignal): Promise<string | null> {
    const { local, readOnly } = introduction;
    const { pid, startTime, uid } = local as LocalPeer;
    if (startTime === null) return 'its process ended before it logged in';
    const { PolkitAuthority, polkitActions } = await import('../../auth/polkit.js');
    this.authority ??= new PolkitAuthority();
    const request: PolkitRequest = {
      // By the socket alone: [access] must not let anybody in who may look but not write.
      action: readOnly ? polkitActions.monitor : polkitActions.manage,
      pid,
      startTime: BigInt(startTime),
      uid,
      timeoutMs: this.timeout(),
      signal,
    };
    const verdict = await this.authority.check(request);
    return verdict.authorized ? null : verdict.reason;
  }
}

/** Why a worker has no business to ask about its client, as the end of a clause; null if it has. */
function faultOf(client: Client | undefined): string | null {
  if (client === undefined) return 'which it does not have';
  const { auth, local } = client.introduction;
  if (auth !== 'polkit' || local === null) return 'whose socket does not ask for polkit';
  return client.onLeft === null ? null : 'about whom polkit is being asked already';
}
