import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TlsContents } from '../config/paths.js';
import type { ControlChannel } from '../control/channel.js';
import {
  beginsAnonymous,
  type ClientIntroduction,
  type PrimaryMessage,
  type WorkerMessage,
} from '../control/messages.js';
import { transportTraits } from '../control/transports.js';
import { errorText } from '../error-text.js';
import type { Logger } from '../logging/logger.js';
import { areScarce, isScarce } from '../native/descriptors.js';
import { handleOf } from '../transport/node-socket.js';
import type { NumberedReceiver } from '../transport/numbered-descriptors.js';
import { SocketStream } from '../transport/socket-stream.js';
import type { Session } from './client/session.js';
import type { Arrival } from './client/session-context.js';
import type { TlsReception } from './client/tls-handshake.js';
import { TlsRefusal } from './client/tls-refusal.js';
import { Turn, type CountingSocket } from './client/turn.js';

/** Descriptors without which no client is asked for: a client and its daemons need several. */
const reservedForClients = 48;

/** Milliseconds between looks whether there are enough descriptors again. */
const descriptorInterval = 50;

/** Turns of the event loop in which all sockets that are ready have been read from. */
const turnsToRead = 16;

/** A client that is to be closed for the sake of another. */
type Eviction = Extract<PrimaryMessage, { kind: 'evict' }>;

/** The worker that arrivals become sessions of. */
export interface ArrivalsHost {
  /** In seconds, the TLS handshake included. */
  readonly loginTimeout: number;
  /** Begins a client's session. */
  begin(arrival: Arrival): void;
  session(id: number): Session | undefined;
}

/** What it takes to serve TLS. */
export interface TlsMeans {
  readonly files: TlsContents;
  /** Throws TlsCredentialsError or TlsPriorityError. */
  readonly makeReception: (files: TlsContents) => TlsReception;
}

/**
 * A worker's way in: sockets that the primary hands over, TLS handshakes, eviction of those that
 * have not logged in, and that no more are asked for than there are descriptors.
 */
export class Arrivals implements NumberedReceiver {
  /** Clients of whom either the socket or what the primary knows has not come yet. */
  private readonly sockets = new Map<number, number | null>();
  private readonly introductions = new Map<number, ClientIntroduction>();
  private begun = 0;
  private closed = false;
  /** Of clients that have not logged in. */
  private readonly turns = new Map<number, Turn>();
  /** TLS clients in their handshake. */
  private readonly arriving = new Map<number, AbortController>();
  private tlsReception: TlsReception | null;
  private descriptorsScarce = false;

  constructor(
    private readonly host: ArrivalsHost,
    private readonly channel: ControlChannel<WorkerMessage, PrimaryMessage>,
    /** Null where nobody listens for TLS. */
    private readonly tls: TlsMeans | null,
    private readonly log: Logger,
  ) {
    this.tlsReception = tls?.makeReception(tls.files) ?? null;
  }

  /** Clients that have come so far. */
  get count(): number {
    return this.begun;
  }

  /** Clients whose session has not begun. */
  get size(): number {
    return this.arriving.size;
  }

  /** What the primary knows of a client whose socket comes, or has come. */
  onIntroduction(introduction: ClientIntroduction): void {
    const { id } = introduction;
    const socket = this.sockets.get(id);
    this.sockets.delete(id);
    if (socket === undefined) this.introductions.set(id, introduction);
    else this.begin(introduction, socket);
  }

  /** A client's socket. */
  arrived(id: number, descriptor: number): void {
    this.onSocket(id, descriptor);
  }

  /** A client's socket, for which this process had no descriptor left. */
  lost(id: number): void {
    this.onSocket(id, null);
  }

  private onSocket(id: number, socket: number | null): void {
    const introduction = this.introductions.get(id);
    this.introductions.delete(id);
    if (introduction === undefined) this.sockets.set(id, socket);
    else this.begin(introduction, socket);
  }

  private begin(introduction: ClientIntroduction, fd: number | null): void {
    const { id } = introduction;
    if (this.closed) {
      // The primary gives it to another, since this process has not said that it has it.
      if (fd !== null) closeSync(fd);
      return;
    }
    this.begun++;
    // Before any of its bytes are read: if this process dies first, another gets it.
    this.channel.send({ kind: 'taken', id });
    if (fd === null) {
      this.channel.send({ kind: 'closed', id });
      return;
    }
    this.onDescriptor(fd);
    const { firstMessage, passesDescriptors } = transportTraits[introduction.transport];
    if (firstMessage === 'tls-record') {
      void this.receiveTls(introduction, fd);
      return;
    }
    this.follow(introduction, { fd });
    const stream = SocketStream.opened(fd, passesDescriptors);
    const arrivedAt = performance.now();
    this.host.begin({ introduction, stream, arrivedAt, x509Name: null, externalSsf: 0 });
  }

  /** Follows how far a client has come that has to log in. */
  private follow(introduction: ClientIntroduction, socket: CountingSocket): Turn {
    const { id } = introduction;
    const turn = new Turn(socket, () => this.tellStanding(id));
    if (beginsAnonymous(introduction)) this.turns.set(id, turn);
    return turn;
  }

  private tellStanding(id: number): void {
    const turn = this.turns.get(id);
    if (turn === undefined) return;
    const { stage } = turn;
    this.channel.send({ kind: 'standing', id, stage, silentFor: this.silentFor(turn, id) });
  }

  private silentFor(turn: Turn, id: number): number {
    return this.host.session(id)?.isOurTurn === true ? 0 : turn.silentFor();
  }

  /**
   * Closes a client for the sake of a new one, unless it waits for us, or has gone on since it was
   * chosen.
   */
  async evict({ id, stage, patience, reason }: Eviction): Promise<void> {
    const hasUnread = (): boolean => this.turns.get(id)?.hasUnread === true;
    if (hasUnread()) {
      for (let turns = 0; turns < turnsToRead && hasUnread(); turns++) await nextTurn();
      // Whether what was read was of any use shows then.
      await nextTurn();
    }
    const turn = this.turns.get(id);
    if (turn === undefined) return;
    if (turn.stage !== stage || this.silentFor(turn, id) < patience) {
      this.tellStanding(id);
      return;
    }
    this.host.session(id)?.evict(reason);
    this.arriving.get(id)?.abort(new TlsRefusal(reason, 'gave_way'));
  }

  /**
   * Handshake and certificate come before the session; its login_timeout counts for them as well.
   */
  private async receiveTls(introduction: ClientIntroduction, fd: number): Promise<void> {
    const { id, remoteAddress } = introduction;
    const socket = new Socket({ fd, pauseOnCreate: true } as never);
    const turn = this.follow(introduction, handleOf(socket));
    const leaving = new AbortController();
    this.arriving.set(id, leaving);
    const seconds = this.host.loginTimeout;
    const timer = setTimeout(() => {
      leaving.abort(
        new TlsRefusal(`It did not finish its TLS handshake within ${seconds} seconds.`),
      );
    }, seconds * 1000);
    try {
      if (this.tlsReception === null) throw new TlsRefusal('This worker does not serve TLS.');
      this.host.begin(await this.tlsReception.receive(introduction, socket, leaving.signal, turn));
    } catch (error) {
      if (!(error instanceof TlsRefusal)) throw error;
      socket.destroy();
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

  /**
   * A descriptor was opened: asks for no more clients while too few are left for them and their
   * daemons.
   */
  onDescriptor(newest: number): void {
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

  /** Closes a client that is on its way in. */
  close(id: number, refusal: TlsRefusal): void {
    this.arriving.get(id)?.abort(refusal);
  }

  /** Closes all that are on their way in, and takes no more. */
  closeAll(reason: string): void {
    this.closed = true;
    for (const leaving of this.arriving.values()) leaving.abort(new TlsRefusal(reason));
  }

  /** A client that has not logged in has said something, and it is for it to go on. */
  onClientsTurn(id: number): void {
    this.turns.get(id)?.theirs('login');
  }

  /** A client has logged in, or left. */
  onSettled(id: number): void {
    this.turns.delete(id);
  }

  /** The primary has found the files good; if they have expired since, the old ones stay in use. */
  renewTls(files: TlsContents): void {
    try {
      this.tlsReception = this.tls?.makeReception(files) ?? null;
    } catch (error) {
      const reason = errorText(error);
      this.log.for('rpc.tls').error(`the TLS files cannot be used, the old ones stay: ${reason}`);
    }
  }
}
