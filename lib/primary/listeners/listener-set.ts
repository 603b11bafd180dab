/**
 * The room of listening sockets: which there should be, opening, taking over and closing them, and
 * accepting. What enters is about a socket before a client has come by it; who may come, and where
 * to, is decided in clients.
 */
import type { Configuration } from '../../config/configuration.js';
import { transportTraits } from '../../control/transports.js';
import type { Logger } from '../../logging/logger.js';
import { ListenError } from './listen-error.js';
import { Listener, type InheritedListener, type ListenerEvents } from './listener.js';
import { listenerSettings, type ActivatedSocket, type PlannedListener } from './listener-plan.js';
import { missingSockets, type InheritedSocket } from './socket-activation.js';
import { applyModeAndOwner, type SocketFilePlan } from './socket-file.js';

/** The listening sockets there are, by name. */
export class ListenerSet {
  private readonly listeners = new Map<string, Listener>();
  private accepting = false;
  private closed = false;
  /** A change that is prepared and not made. */
  private pending: {
    readonly plan: readonly PlannedListener[];
    readonly opened: readonly Listener[];
  } | null = null;

  constructor(
    private readonly events: ListenerEvents,
    private readonly log: Logger,
  ) {}

  get names(): string[] {
    return [...this.listeners.keys()];
  }

  get all(): Iterable<Listener> {
    return this.listeners.values();
  }

  /**
   * Takes over the sockets that a predecessor or the service manager listens on already. They are
   * shared for now: the predecessor may have to go on with them.
   */
  takeOver(
    inherited: readonly InheritedListener[],
    activated: readonly InheritedSocket[],
    configuration: Configuration,
  ): void {
    for (const { settings, fd, path } of inherited) {
      this.add(Listener.inherited(settings, fd, path));
    }
    for (const { fd, role, name } of activated) {
      const settings = listenerSettings(configuration, role, name, true);
      this.add(Listener.inherited(settings, fd, null));
    }
    const roles = configuration.mode === 'system' ? undefined : (['rw', 'admin'] as const);
    for (const line of missingSockets(activated, roles)) this.log.warning(line);
    this.share(true);
  }

  private add(listener: Listener): void {
    this.listeners.set(keyOf(listener.settings), listener);
  }

  /**
   * Opens what the plan has and the set lacks, before anything old is closed. `commit` or `abandon`
   * is to follow. Throws ListenError; nothing has changed then.
   */
  async prepare(plan: readonly PlannedListener[]): Promise<void> {
    const opened: Listener[] = [];
    this.pending = { plan, opened };
    const wanted = new Set(plan.map(({ settings }) => keyOf(settings)));
    const going = [...this.listeners].filter(([key]) => !wanted.has(key));
    const rivals = going.map(([, listener]) => listener).filter(isRemote);
    try {
      for (const planned of plan) {
        if (this.listeners.has(keyOf(planned.settings))) continue;
        const listener = await this.open(planned, rivals).catch((error: unknown) => {
          throw placed(planned.place, error);
        });
        if (this.closed) {
          listener?.close();
          throw new ListenError('The daemon stops.');
        }
        if (listener !== null) opened.push(listener);
      }
    } catch (error) {
      this.abandon();
      throw error;
    }
  }

  /**
   * Makes the change that was prepared: new sockets accept, changed ones are as they should be, the
   * rest is closed.
   */
  commit(): void {
    if (this.pending === null) return;
    const { plan, opened } = this.pending;
    this.pending = null;
    this.changeTo(plan, opened);
  }

  /** Takes the change that was prepared back. */
  abandon(): void {
    for (const listener of this.pending?.opened ?? []) listener.close();
    this.pending = null;
  }

  /** Those that the service manager has opened. */
  get activated(): ActivatedSocket[] {
    return [...this.listeners.values()].flatMap(({ settings: { isActivated, role, name } }) =>
      isActivated && role !== 'metrics' ? [{ role, name }] : [],
    );
  }

  /** Begins to accept on all sockets, those added later too. */
  accept(): void {
    this.accepting = true;
    for (const listener of this.listeners.values()) listener.accept(this.events);
  }

  /** Stops accepting; connections that arrive wait in the kernel. */
  pause(): void {
    this.accepting = false;
    for (const listener of this.listeners.values()) listener.pause();
  }

  /**
   * Stops accepting clients for a while, until the next `accept`; administrators are still
   * accepted.
   */
  pauseClients(): void {
    for (const listener of this.listeners.values()) {
      if (listener.settings.role !== 'admin') listener.pause();
    }
  }

  /**
   * Lets nobody new connect to the UNIX sockets, while connections that wait are still accepted.
   */
  hide(): void {
    for (const listener of this.listeners.values()) listener.hide();
  }

  show(): void {
    for (const listener of this.listeners.values()) listener.show();
  }

  /**
   * Leaves the files of the sockets there are to another process that listens on them too, or takes
   * them back.
   */
  share(shared: boolean): void {
    for (const listener of this.listeners.values()) listener.share(shared);
  }

  /** Whether somebody waits to be accepted. */
  get isWaitedFor(): boolean {
    return [...this.listeners.values()].some((listener) => listener.isWaitedFor);
  }

  /** For good. */
  close(): void {
    this.closed = true;
    this.abandon();
    for (const listener of this.listeners.values()) listener.close();
    this.listeners.clear();
  }

  private changeTo(plan: readonly PlannedListener[], opened: readonly Listener[]): void {
    const wanted = new Map(plan.map((planned) => [keyOf(planned.settings), planned]));
    for (const [key, listener] of this.listeners) {
      const planned = wanted.get(key);
      if (planned === undefined) {
        this.log.info(`no longer listening on ${listener.settings.name}`);
        listener.retire();
        this.listeners.delete(key);
        continue;
      }
      if (listener.settings.backlog !== planned.settings.backlog) listener.pause();
      listener.settings = planned.settings;
      if ('file' in planned) this.changeFile(planned.file);
    }
    for (const listener of opened) this.add(listener);
    if (this.accepting) this.accept();
  }

  private changeFile(file: SocketFilePlan): void {
    try {
      applyModeAndOwner(file);
    } catch (error) {
      this.log.error(`cannot change mode and group of ${file.path}: ${String(error)}`);
    }
  }

  private async open(
    planned: PlannedListener,
    rivals: readonly Listener[],
  ): Promise<Listener | null> {
    const { settings } = planned;
    if ('file' in planned) return Listener.onPath(settings, planned.file);
    if ('isOpen' in planned) return null;
    const { address, port, optional } = planned;
    try {
      return Listener.onAddress(settings, address, port);
    } catch (error) {
      // A listener on all addresses has the port on each of them.
      if (rivals.length > 0 && systemCode(error) === 'EADDRINUSE') {
        return Listener.onAddress(settings, address, port, rivals);
      }
      if (!optional || !isWithoutFamily(error)) throw error;
      this.log.debug(`${settings.name}: this host has no such addresses`);
      return null;
    }
  }
}

const keyOf = ({ transport, name }: Listener['settings']): string => `${transport}:${name}`;

const isRemote = ({ settings }: Listener): boolean => !transportTraits[settings.transport].isLocal;

function isWithoutFamily(error: unknown): boolean {
  return ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes(systemCode(error) ?? '');
}

function placed(place: string | null, error: unknown): unknown {
  if (place === null || !(error instanceof ListenError)) return error;
  return new ListenError(`${place}: ${error.message}`, { cause: error });
}

/** Why the system would not let us listen. */
function systemCode(error: unknown): string | undefined {
  if (!(error instanceof ListenError) || !(error.cause instanceof Error)) return undefined;
  return (error.cause as NodeJS.ErrnoException).code;
}
