import type { AdminServer } from '../admin/admin-server.js';
import type { Logger } from '../logging/logger.js';
import type { MetricsService } from '../metrics/metrics-service.js';
import { SocketStream } from '../transport/socket-stream.js';
import { DescriptorReserve } from './clients/descriptor-reserve.js';
import { localPeer } from './clients/local-peer.js';
import type { Reception } from './clients/reception.js';
import { ListenerSet } from './listeners/listener-set.js';
import type { Connection } from './listeners/connection.js';
import type { Listener, ListenerEvents } from './listeners/listener.js';

/**
 * Where connections come in: accepts them while there are descriptors, and gives each to whom it is
 * for.
 */
export class Entrance implements ListenerEvents {
  readonly listeners: ListenerSet;
  /** Null until metrics are wanted. */
  metrics: MetricsService | null = null;
  private readonly reserve: DescriptorReserve;
  private isOpen = false;

  constructor(
    private readonly reception: Reception,
    private readonly admin: AdminServer,
    private readonly log: Logger,
  ) {
    const listeners = new ListenerSet(this, log.for('rpc.listener'));
    this.listeners = listeners;
    this.reserve = new DescriptorReserve(
      {
        queueLength: () => reception.queue.length,
        pause: () => listeners.pauseClients(),
        resume: () => this.serve(),
      },
      log,
    );
  }

  /** Begins to accept connections on the sockets that were prepared. */
  open(): void {
    this.listeners.share(false);
    this.listeners.commit();
    this.isOpen = true;
    this.serve();
  }

  /**
   * Goes on with accepting, as far as it may, and with those who wait: workers or sockets have
   * come.
   */
  serve(): void {
    if (!this.isOpen) return;
    if (!this.reserve.isExhausted) this.listeners.accept();
    this.reception.serveWaiting();
  }

  /** Accepts no more, and leaves no file of a socket. */
  close(): void {
    this.isOpen = false;
    this.listeners.close();
  }

  /** Leaves the sockets to a successor. Clients that were accepted are still served. */
  handOver(): void {
    this.listeners.share(true);
    this.listeners.close();
  }

  /** A worker has too few descriptors, or enough again. */
  onWorkerDescriptors(areScarce: boolean): void {
    if (areScarce) this.reserve.onWorkerScarcity();
    else this.reception.serveWaiting();
  }

  onConnection(listener: Listener, connection: Connection): void {
    this.reserve.onDescriptor(connection.fd);
    const { role } = listener.settings;
    if (role === 'admin') this.administratorConnected(connection);
    else if (role !== 'metrics') this.reception.onConnection(listener, connection);
    else if (this.metrics === null) connection.close();
    else this.metrics.connected(connection.fd);
  }

  onAcceptError(listener: Listener, error: Error): void {
    this.log.error(
      `cannot accept on ${listener.settings.name}: ${error.message}; ` +
        'if there are too many open files, raise the limit (LimitNOFILE=, ulimit -n)',
    );
  }

  private administratorConnected(connection: Connection): void {
    try {
      const peer = localPeer(connection.fd);
      this.admin.connected(SocketStream.accepted(connection), peer);
    } catch (error) {
      this.log.debug(`an administrator left before it could be identified: ${String(error)}`);
      connection.close();
    }
  }
}
