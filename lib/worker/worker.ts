import { setImmediate as nextTurn } from 'node:timers/promises';
import { accessRules, rightsOf } from '../auth/rights.js';
import type { PolkitAuthority } from '../auth/polkit.js';
import type { Configuration } from '../config/configuration.js';
import type { ControlChannel } from '../control/channel.js';
import {
  beginsAnonymous,
  type ClientIntroduction,
  type PrimaryMessage,
  type WorkerLoad,
  type WorkerMessage,
  type WorkerSetup,
} from '../control/messages.js';
import { transportTraits } from '../control/transports.js';
import { Logger, LogThreshold } from '../logging/logger.js';
import { errorText } from '../error-text.js';
import { SocketStream, type SocketHandle } from '../transport/socket-stream.js';
import * as accounts from '../native/accounts.js';
import { areScarce, isScarce } from '../native/descriptors.js';
import { CallMeter } from './reports/call-meter.js';
import { DaemonDirectory, type Endpoint } from './daemon/directory.js';
import { tooManyOpenFiles } from './daemon/errors.js';
import { DaemonRestarts } from './daemon/restarts.js';
import { LogSender } from './reports/log-sender.js';
import { Reporter } from './reports/reporter.js';
import { SaslWear } from './client/sasl-wear.js';
import { Session } from './client/session.js';
import type { Arrival, SessionContext } from './client/session-context.js';
import { SessionDaemons } from './daemon/autostart.js';
import type { TlsReception } from './client/tls-handshake.js';
import { TlsRefusal } from './client/tls-refusal.js';
import { Turn } from './client/turn.js';

/** Milliseconds between looks at all sessions' silence. */
const tickInterval = 1000;

/** Milliseconds that workers and daemons that are polled are left in peace. */
const pollInterval = 20;

/** Descriptors without which no client is asked for: a client and its daemons need several. */
const reservedForClients = 48;

/** Descriptors that no daemon's connection may use. */
const reservedForArrivals = 16;

/** Milliseconds between looks whether there are enough descriptors again. */
const descriptorInterval = 50;

/** A client asked to leave its place to another. */
type GivingWay = Extract<PrimaryMessage, { kind: 'giveWay' }>;

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
  /** Null with metrics off. */
  private readonly reporter: Reporter | null;
  /** Of clients that have not logged in. */
  private readonly turns = new Map<number, Turn>();
  /** TLS clients in their handshake. */
  private readonly arriving = new Map<number, AbortController>();
  private tlsReception: TlsReception | null;
  private polkit: PolkitAuthority | null = null;
  private ending = false;
  private descriptorsScarce = false;

  private constructor(
    { configuration, logging }: WorkerSetup,
    private readonly channel: Channel,
    /** Null where nobody listens for TLS. */
    private readonly makeTlsReception: (() => TlsReception) | null,
  ) {
    this.threshold = new LogThreshold(logging);
    this.sender = new LogSender(channel, logging.auditing);
    this.log = new Logger('daemon.worker', this.threshold, this.sender.log);
    this.starter =
      configuration.mode === 'session'
        ? new SessionDaemons(process.env, this.log.for('remote.daemon'))
        : null;
    this.context = this.makeContext(configuration);
    const { meter } = this.context;
    this.reporter = meter === null ? null : this.makeReporter(meter);
    this.tlsReception = makeTlsReception?.() ?? null;
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
    const { configuration } = setup;
    if (!configuration.conf.listen_tls) return new Worker(setup, channel, null);
    // It takes its time to load, which most hosts need not spend.
    const { TlsReception } = await import('./client/tls-handshake.js');
    return new Worker(setup, channel, () => new TlsReception(configuration));
  }

  /** A message of the primary. */
  told(message: PrimaryMessage): void {
    switch (message.kind) {
      case 'logging':
        this.threshold.change(message);
        this.sender.on = message.auditing;
        break;
      case 'closeClient':
        this.sessions.get(message.id)?.close(message.reason);
        this.arriving.get(message.id)?.abort(new TlsRefusal(message.reason, null));
        break;
      case 'giveWay':
        void this.giveWay(message);
        break;
      case 'stop':
        void this.stop(message.seconds);
        break;
      case 'drain':
        void this.drain(message.seconds);
        break;
      case 'tls':
        this.renewTls();
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

  /** A socket that the primary accepted. */
  handed(message: unknown, handle: unknown): void {
    const introduction = message as ClientIntroduction;
    const { id } = introduction;
    this.channel.send({ kind: 'taken', id });
    if (handle === undefined || handle === null) {
      // The client left while its socket was on the way.
      this.channel.send({ kind: 'closed', id });
      return;
    }
    this.watchDescriptors((handle as SocketHandle).fd);
    const turn = new Turn(handle as SocketHandle, () => this.tellStanding(id));
    if (beginsAnonymous(introduction)) this.turns.set(id, turn);
    const { firstMessage, passesDescriptors } = transportTraits[introduction.transport];
    if (firstMessage === 'tls-record') {
      void this.receiveTls(introduction, handle as SocketHandle, turn);
      return;
    }
    const stream = SocketStream.accepted(handle as SocketHandle, passesDescriptors);
    const arrivedAt = performance.now();
    this.begin({ introduction, stream, arrivedAt, x509Name: null, externalSsf: 0 });
  }

  private begin(arrival: Arrival): void {
    const session = new Session(arrival, this.context);
    this.sessions.set(session.id, session);
    session.start();
  }

  private tellStanding(id: number): void {
    const turn = this.turns.get(id);
    if (turn === undefined) return;
    const { stage } = turn;
    this.channel.send({ kind: 'standing', id, stage, silentFor: this.silentFor(turn, id) });
  }

  private silentFor(turn: Turn, id: number): number {
    return this.sessions.get(id)?.isOurTurn === true ? 0 : turn.silentFor();
  }

  /**
   * Closes a client for the sake of a new one, unless it waits for us, or has gone on since it was
   * chosen.
   */
  private async giveWay({ id, stage, patience, reason }: GivingWay): Promise<void> {
    if (this.turns.get(id)?.hasUnread === true) {
      // What waits is read by the end of the loop's next turn; whether it was of any use shows
      // then.
      await nextTurn();
      await nextTurn();
    }
    const turn = this.turns.get(id);
    if (turn === undefined) return;
    if (turn.stage !== stage || this.silentFor(turn, id) < patience) {
      this.tellStanding(id);
      return;
    }
    this.sessions.get(id)?.giveWay(reason);
    this.arriving.get(id)?.abort(new TlsRefusal(reason, 'gave_way'));
  }

  /**
   * Handshake and certificate come before the session; its login_timeout counts for them as well.
   */
  private async receiveTls(
    introduction: ClientIntroduction,
    handle: SocketHandle,
    turn: Turn,
  ): Promise<void> {
    const { id, remoteAddress } = introduction;
    const leaving = new AbortController();
    this.arriving.set(id, leaving);
    const seconds = this.context.configuration.cluster.login_timeout;
    const timer = setTimeout(() => {
      leaving.abort(
        new TlsRefusal(`It did not finish its TLS handshake within ${seconds} seconds.`),
      );
    }, seconds * 1000);
    try {
      if (this.tlsReception === null) throw new TlsRefusal('This worker does not serve TLS.');
      this.begin(await this.tlsReception.receive(introduction, handle, leaving.signal, turn));
    } catch (error) {
      if (!(error instanceof TlsRefusal)) throw error;
      const line = `client ${id} (tls, ${remoteAddress ?? ''}) was refused: ${error.message}`;
      this.log.for('rpc.tls')[error.level](line);
      this.turns.delete(id);
      const { refusal } = error;
      this.channel.send({ kind: 'closed', id, ...(refusal !== null && { refusal }) });
    } finally {
      clearTimeout(timer);
      this.arriving.delete(id);
    }
  }

  /** Asks for no more clients while too few descriptors are left for them and their daemons. */
  private watchDescriptors(newest: number): void {
    if (this.descriptorsScarce || !isScarce(newest, reservedForClients)) return;
    this.descriptorsScarce = true;
    this.channel.send({ kind: 'descriptors', areScarce: true });
    const look = setInterval(() => {
      if (areScarce(reservedForClients)) return;
      clearInterval(look);
      this.descriptorsScarce = false;
      this.channel.send({ kind: 'descriptors', areScarce: false });
    }, descriptorInterval).unref();
  }

  /**
   * Leaves some descriptors for clients that are on their way from the primary: one that is lost
   * cannot be told so.
   */
  private async connect(endpoint: Endpoint, signal: AbortSignal): Promise<SocketStream> {
    const stream = await (this.starter?.connect(endpoint, signal) ??
      SocketStream.connect(endpoint.path, signal));
    this.watchDescriptors(stream.fd);
    if (!isScarce(stream.fd, reservedForArrivals)) return stream;
    stream.destroy();
    throw tooManyOpenFiles();
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

  /** The primary has found the files good; if they are bad by now, the old ones stay in use. */
  private renewTls(): void {
    try {
      this.tlsReception = this.makeTlsReception?.() ?? null;
    } catch (error) {
      const reason = errorText(error);
      this.log.for('rpc.tls').error(`the TLS files cannot be used, the old ones stay: ${reason}`);
    }
  }

  private makeContext(configuration: Configuration): SessionContext {
    const { log } = this;
    const daemons = new DaemonDirectory(configuration);
    const rules = accessRules(configuration.access, accounts);
    const meter = configuration.metrics.listen === null ? null : new CallMeter(daemons.daemonNames);
    const wear = new SaslWear((state) => {
      this.channel.send({ kind: 'worn', state });
    });
    return {
      configuration,
      daemons,
      connect: (endpoint, signal) => this.connect(endpoint, signal),
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
      login: ({ transport, localAddress, remoteAddress }, externalSsf) => ({
        sasl: {
          transport,
          externalSsf,
          minSsf: configuration.conf.tcp_min_ssf,
          localAddress: localAddress ?? undefined,
          remoteAddress: remoteAddress ?? undefined,
        },
        allowedUsers: configuration.conf.sasl_allowed_username_list,
        polkit: async () => {
          const { PolkitAuthority } = await import('../auth/polkit.js');
          const timeoutMs = configuration.cluster.login_timeout * 1000;
          return (this.polkit ??= new PolkitAuthority({ timeoutMs }));
        },
        saslStepped: () => wear.check(),
      }),
      rights: (client) => rightsOf(client, rules),
      log: log.for('rpc.session'),
      audit: this.sender,
      meter,
      clientsTurn: (id) => this.turns.get(id)?.theirs('login'),
      loggedIn: (id, identity) => {
        this.turns.delete(id);
        this.channel.send({ kind: 'loggedIn', id, ...identity });
      },
      closed: (session, refusal) => {
        const { id } = session;
        this.sessions.delete(id);
        this.turns.delete(id);
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
    for (const leaving of this.arriving.values())
      leaving.abort(new TlsRefusal('the proxy is stopping'));
    for (const session of this.sessions.values()) session.stopCalls();
    await this.until(() => {
      for (const session of this.sessions.values()) {
        if (session.pendingCalls === 0) session.close('the proxy is stopping');
      }
      return this.sessions.size === 0;
    }, deadline);
    for (const session of this.sessions.values()) session.close('the proxy is stopping');
    this.polkit?.close();
    this.sender.flush();
    this.reporter?.send();
    this.channel.flush(() => process.exit(0));
  }

  /** Serves the clients there are until they leave, for `seconds` at most unless that is 0. */
  private async drain(seconds: number): Promise<void> {
    const deadline = seconds === 0 ? Infinity : performance.now() + seconds * 1000;
    // Clients may be on their way until the primary has closed node's channel behind them.
    const isDeserted = (): boolean =>
      !process.connected && this.sessions.size + this.arriving.size === 0;
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
