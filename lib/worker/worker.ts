import { accessRules, rightsOf } from '../auth/rights.js';
import type { Configuration } from '../config/configuration.js';
import { isConfigured } from '../config/daemon-places.js';
import type { TlsContents } from '../config/paths.js';
import type { ControlChannel } from '../control/channel.js';
import {
  beginsAnonymous,
  type PrimaryMessage,
  type WorkerLoad,
  type WorkerMessage,
  type WorkerSetup,
} from '../control/messages.js';
import { transportTraits } from '../control/transports.js';
import { workerDescriptors } from '../control/worker-stdio.js';
import { Logger, LogThreshold } from '../logging/logger.js';
import * as accounts from '../native/accounts.js';
import { isScarce } from '../native/descriptors.js';
import { receiveNumbered } from '../transport/numbered-descriptors.js';
import { SocketStream } from '../transport/socket-stream.js';
import { Arrivals, type ArrivalsHost, type TlsMeans } from './arrivals.js';
import { SaslWear } from './client/sasl-wear.js';
import { Session } from './client/session.js';
import type { Arrival, SessionContext } from './client/session-context.js';
import type { TlsReception } from './client/tls-handshake.js';
import { TlsRefusal } from './client/tls-refusal.js';
import { SessionDaemons } from './daemon/autostart.js';
import type { Attempt } from './daemon/connection.js';
import { DaemonDirectory, type Endpoint } from './daemon/directory.js';
import {
  ownConnector,
  PrimaryConnector,
  reservedForArrivals,
  type Connector,
} from './daemon/connector.js';
import { tooManyOpenFiles } from './daemon/errors.js';
import { DaemonRestarts } from './daemon/restarts.js';
import { CallMeter } from './reports/call-meter.js';
import { assertRunsAs } from './own-user.js';
import { LogSender } from './reports/log-sender.js';
import { Reporter } from './reports/reporter.js';

/** Milliseconds between looks at all sessions' silence. */
const tickInterval = 1000;

/** Milliseconds that workers and daemons that are polled are left in peace. */
const pollInterval = 20;

type Channel = ControlChannel<WorkerMessage, PrimaryMessage>;

/** All sessions of one worker process, and what they share. */
export class Worker {
  private readonly sessions = new Map<number, Session>();
  private readonly threshold: LogThreshold;
  private readonly sender: LogSender;
  private readonly log: Logger;
  private readonly context: SessionContext;
  /** Starts daemons that are missing, in session mode. */
  private readonly starter: SessionDaemons | null;
  /** Has the primary connect to daemons, where this process may not. */
  private readonly broker: PrimaryConnector | null;
  /** Null with metrics off. */
  private readonly reporter: Reporter | null;
  private readonly arrivals: Arrivals;
  /** Clients about whom polkit is being asked, and who waits for its verdict. */
  private readonly underPolkit = new Map<number, (refusal: string | null) => void>();
  private ending = false;

  private constructor(
    { configuration, logging, user }: WorkerSetup,
    private readonly channel: Channel,
    tls: TlsMeans | null,
  ) {
    this.threshold = new LogThreshold(logging);
    this.sender = new LogSender(channel, logging.auditing);
    this.log = new Logger('daemon.worker', this.threshold, this.sender.log);
    this.starter =
      configuration.mode === 'session'
        ? new SessionDaemons(process.env, this.log.for('remote.daemon'))
        : null;
    this.broker = user === null ? null : this.makeBroker(configuration);
    this.context = this.makeContext(configuration);
    const { meter } = this.context;
    this.reporter = meter === null ? null : this.makeReporter(meter);
    const host: ArrivalsHost = {
      loginTimeout: configuration.cluster.login_timeout,
      begin: (arrival) => this.begin(arrival),
      session: (id) => this.sessions.get(id),
    };
    this.arrivals = new Arrivals(host, channel, tls, this.log);
    receiveNumbered(SocketStream.opened(workerDescriptors.clients), this.arrivals);
    setInterval(() => {
      const now = performance.now();
      for (const session of this.sessions.values()) session.tick(now);
    }, tickInterval).unref();
  }

  /**
   * Makes the worker that a primary has asked for. Rejects with TlsCredentialsError or
   * TlsPriorityError.
   */
  static async start(setup: WorkerSetup, channel: Channel): Promise<Worker> {
    const { configuration, user, tls } = setup;
    if (user !== null) assertRunsAs(user);
    if (tls === null) return new Worker(setup, channel, null);
    // It takes its time to load, which most hosts need not spend.
    const { TlsReception } = await import('./client/tls-handshake.js');
    const makeReception = (files: TlsContents): TlsReception =>
      new TlsReception(configuration, files);
    return new Worker(setup, channel, { files: tls, makeReception });
  }

  /** A message of the primary. */
  onMessage(message: PrimaryMessage): void {
    switch (message.kind) {
      case 'logging':
        this.threshold.change(message);
        this.sender.on = message.auditing;
        break;
      case 'closeClient':
        this.sessions.get(message.id)?.close(message.reason);
        this.arrivals.close(message.id, new TlsRefusal(message.reason, null));
        break;
      case 'evict':
        void this.arrivals.evict(message);
        break;
      case 'unconnected':
      case 'seen':
        this.broker?.onAnswer(message);
        break;
      case 'polkit':
        this.underPolkit.get(message.id)?.(message.refusal);
        this.underPolkit.delete(message.id);
        break;
      case 'stop':
        void this.stop(message.seconds);
        break;
      case 'client':
        this.arrivals.onIntroduction(message);
        break;
      case 'drain':
        void this.drain(message.seconds, message.clients);
        break;
      case 'tls':
        this.arrivals.renewTls(message.tls);
        break;
      case 'load':
        this.reporter?.send();
        this.channel.send({ kind: 'load', ...this.load() });
        break;
      case 'heartbeat':
      case 'configure':
        // Answered before there was a worker: see main.ts.
        break;
    }
  }

  private begin(arrival: Arrival): void {
    const session = new Session(arrival, this.context);
    this.sessions.set(session.id, session);
    session.start();
    // Of others it is not known yet what they may do.
    if (!beginsAnonymous(arrival.introduction)) this.connectAhead(session);
  }

  /**
   * Leaves some descriptors for clients that are on their way from the primary: one that is lost
   * cannot be told so.
   */
  private async connect(
    client: number,
    endpoint: Endpoint,
    attempt: Attempt,
  ): Promise<SocketStream> {
    const stream = await (this.starter?.connect(endpoint, attempt) ??
      this.connector.connect(client, endpoint, attempt));
    this.arrivals.onDescriptor(stream.fd);
    if (!isScarce(stream.fd, reservedForArrivals)) return stream;
    stream.destroy();
    throw tooManyOpenFiles();
  }

  private connectAhead({ id, profile: { isReadOnly } }: Session): void {
    this.broker?.connectAhead(id, isReadOnly, (driver) =>
      this.context.daemons.endpoint(driver, isReadOnly),
    );
  }

  private get connector(): Connector {
    return this.broker ?? ownConnector;
  }

  private makeBroker(configuration: Configuration): PrimaryConnector {
    return new PrimaryConnector(
      (question) => this.channel.send(question),
      SocketStream.opened(workerDescriptors.daemons),
      (driver) => isConfigured(configuration, driver),
    );
  }

  private makeReporter(meter: CallMeter): Reporter {
    return new Reporter(this.channel, {
      meter,
      sessions: () => this.sessions.values(),
      load: () => this.load(),
      lostLines: () => this.sender.drops,
    });
  }

  private load(): WorkerLoad {
    const load = { underWay: 0, held: 0 };
    for (const { pendingCalls, heldCalls } of this.sessions.values()) {
      load.underWay += pendingCalls;
      load.held += heldCalls;
    }
    return load;
  }

  private makeContext(configuration: Configuration): SessionContext {
    const { log } = this;
    const daemons = new DaemonDirectory(configuration, (endpoint) =>
      this.connector.exists(endpoint),
    );
    const rules = accessRules(configuration.access, accounts);
    const meter = configuration.metrics.listen === null ? null : new CallMeter(daemons.daemonNames);
    const wear = new SaslWear((state) => {
      this.channel.send({ kind: 'worn', state });
    });
    return {
      configuration,
      daemons,
      connect: (client, endpoint, attempt) => this.connect(client, endpoint, attempt),
      restarts: new DaemonRestarts(
        {
          patience: configuration.cluster.daemon_restart_timeout * 1000,
          maxAtOnce: configuration.cluster.max_daemon_reopenings,
        },
        log.for('remote.daemon'),
        meter,
      ),
      probe: (readOnly) =>
        daemons.probe(readOnly, (daemon) => (this.starter?.find(daemon) ?? null) !== null),
      login: ({ id, transport, localAddress, remoteAddress }, externalSsf) => ({
        sasl: {
          transport,
          needsLayer: transportTraits[transport].needsSaslLayer,
          externalSsf,
          minSsf: configuration.conf.tcp_min_ssf,
          localAddress: localAddress ?? undefined,
          remoteAddress: remoteAddress ?? undefined,
        },
        allowedUsers: configuration.conf.sasl_allowed_username_list,
        polkit: () =>
          new Promise((resolve) => {
            this.underPolkit.set(id, resolve);
            this.channel.send({ kind: 'askPolkit', id });
          }),
        saslStepped: () => wear.check(),
      }),
      rights: (client) => rightsOf(client, rules),
      log: log.for('rpc.session'),
      audit: this.sender,
      meter,
      clientsTurn: (id) => this.arrivals.onClientsTurn(id),
      loggedIn: (id, identity) => {
        this.arrivals.onSettled(id);
        this.channel.send({ kind: 'loggedIn', id, ...identity });
      },
      closed: (session, refusal) => {
        const { id } = session;
        this.sessions.delete(id);
        this.underPolkit.delete(id);
        this.broker?.forget(id);
        this.arrivals.onSettled(id);
        this.reporter?.left(session);
        this.channel.send({ kind: 'closed', id, ...(refusal !== null && { refusal }) });
      },
    };
  }

  /** Lets replies to calls already forwarded go out, closes all clients and ends the process. */
  private async stop(seconds: number): Promise<void> {
    if (this.ending) return;
    this.ending = true;
    const deadline = performance.now() + seconds * 1000;
    this.arrivals.closeAll('the proxy is stopping');
    for (const session of this.sessions.values()) session.stopCalls();
    await this.until(() => {
      for (const session of this.sessions.values()) {
        if (session.pendingCalls === 0) session.close('the proxy is stopping');
      }
      return this.sessions.size === 0;
    }, deadline);
    for (const session of this.sessions.values()) session.close('the proxy is stopping');
    this.sender.flush();
    this.reporter?.send();
    this.channel.flush(() => process.exit(0));
  }

  /** Serves the clients there are until they leave, for `seconds` at most unless that is 0. */
  private async drain(seconds: number, clients: number): Promise<void> {
    const deadline = seconds === 0 ? Infinity : performance.now() + seconds * 1000;
    const isDeserted = (): boolean =>
      this.arrivals.count === clients && this.sessions.size + this.arrivals.size === 0;
    await this.until(isDeserted, deadline);
    await this.stop(this.context.configuration.cluster.stop_timeout);
  }

  private until(condition: () => boolean, deadline: number): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (condition() || performance.now() >= deadline) resolve();
        else setTimeout(look, pollInterval);
      };
      look();
    });
  }
}
