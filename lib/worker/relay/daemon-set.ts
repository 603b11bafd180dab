import { procedureOf, programOf } from '../../rpc/frame.js';
import { procedureAt, type SecondaryDriver } from '../../rpc/procedures.js';
import { openReadOnly, type OpenArguments } from '../../rpc/session-messages.js';
import type { DaemonDirectory, Endpoint } from '../daemon/directory.js';
import { ConnectError } from '../daemon/errors.js';
import type { LinkOwner, LinkSettings } from '../daemon/link-owner.js';
import { DaemonLink } from '../daemon/link.js';
import type { LinkRole } from '../daemon/reply-gate.js';
import type { CallMeter } from '../reports/call-meter.js';
import { socketClosed } from './answers.js';

/** What the set needs of a client's settings. */
export interface DaemonSetSettings extends LinkSettings {
  readonly daemons: DaemonDirectory;
  /** Null when nobody wants to know. */
  readonly meter: CallMeter | null;
}

/** Whose daemons they are: it is told of those that are opened at first use, too. */
export interface DaemonSetOwner extends LinkOwner<DaemonLink> {
  opened(link: DaemonLink): void;
  /** `error` is null when there is no such daemon and the hypervisor's takes its place. */
  failedToOpen(link: DaemonLink, error: unknown): void;
}

/** The daemons of one client: the hypervisor's and, opened at first use, those of other drivers. */
export class DaemonSet {
  private hypervisor: DaemonLink | null = null;
  private readonly secondaries = new Map<SecondaryDriver, DaemonLink>();
  /** Drivers without a daemon of their own here: the hypervisor's serves them. */
  private readonly absent = new Set<SecondaryDriver>();
  private links: readonly DaemonLink[] = [];
  private flags = 0;
  private closed = false;

  constructor(
    private readonly settings: DaemonSetSettings,
    private readonly owner: DaemonSetOwner,
  ) {}

  /** The hypervisor's link, and those of others that are not closed. */
  get all(): readonly DaemonLink[] {
    return this.links;
  }

  get hasSecondaries(): boolean {
    return this.secondaries.size > 0;
  }

  /** Opens the hypervisor's daemon. Rejects with RpcError or DaemonRefusal. */
  async open(endpoint: Endpoint, opening: OpenArguments): Promise<void> {
    // The client may have left while it was found out which daemon that is.
    if (this.closed) throw socketClosed;
    this.flags = opening.flags;
    const link = this.linkTo(endpoint, 'hypervisor', opening);
    this.hypervisor = link;
    this.links = [link];
    await link.open();
  }

  /**
   * The link that serves a call; for a secondary driver used for the first time, one that is being
   * opened.
   */
  find(bytes: Buffer, start: number): DaemonLink {
    const hypervisor = this.opened;
    const route = procedureAt(programOf(bytes, start), procedureOf(bytes, start))?.route;
    if (route === undefined || route === 'session' || route === 'hypervisor') return hypervisor;
    if (this.absent.has(route)) return hypervisor;
    const known = this.secondaries.get(route);
    if (known !== undefined) return known;
    const readOnly = (this.flags & openReadOnly) !== 0;
    const endpoint = this.settings.daemons.secondary(hypervisor.driver, route, readOnly);
    if (endpoint !== null) return this.openSecondary(route, endpoint);
    this.absent.add(route);
    return hypervisor;
  }

  /** The link that serves frames of a procedure, if it has ever been used. */
  known(bytes: Buffer, start: number): DaemonLink | null {
    const route = procedureAt(programOf(bytes, start), procedureOf(bytes, start))?.route;
    if (route === undefined || route === 'session' || route === 'hypervisor') {
      return this.hypervisor;
    }
    return this.absent.has(route) ? this.hypervisor : (this.secondaries.get(route) ?? null);
  }

  /** A link is closed for good. A secondary daemon's next call opens another one. */
  forget(link: DaemonLink): void {
    if (link.role === 'hypervisor') return;
    const driver = link.driver as SecondaryDriver;
    if (this.secondaries.get(driver) === link) this.secondaries.delete(driver);
    this.links = this.links.filter((other) => other !== link);
  }

  close(): void {
    this.closed = true;
    for (const link of this.links) link.close();
  }

  private get opened(): DaemonLink {
    if (this.hypervisor === null) throw new Error('no daemon was opened');
    return this.hypervisor;
  }

  private openSecondary(route: SecondaryDriver, endpoint: Endpoint): DaemonLink {
    const name = this.settings.daemons.secondaryUri(route);
    const flags = this.flags & openReadOnly;
    const link = this.linkTo(endpoint, 'secondary', { name, flags });
    this.secondaries.set(route, link);
    this.links = [...this.links, link];
    link.open().then(
      () => this.owner.opened(link),
      (error: unknown) => {
        if (this.closed) return;
        this.forget(link);
        const isAbsent = error instanceof ConnectError && error.reason.code === 'ENOENT';
        if (isAbsent) {
          const line = `${error.path} does not exist: the hypervisor's daemon serves ${route}`;
          this.settings.log.debug(line);
          this.absent.add(route);
        }
        this.owner.failedToOpen(link, isAbsent ? null : error);
      },
    );
    return link;
  }

  private linkTo(endpoint: Endpoint, role: LinkRole, opening: OpenArguments): DaemonLink {
    const meter = this.settings.meter?.daemon(endpoint.daemon) ?? null;
    return new DaemonLink(endpoint, role, opening, this.owner, this.settings, meter);
  }
}
