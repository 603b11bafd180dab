import type { ProvenClient, Rights } from '../../auth/rights.js';
import type { ClientIntroduction, ProvenIdentity } from '../../control/messages.js';
import type { TypedParameter } from '../../rpc/typed-parameters.js';
import type { AuditedClient } from '../reports/call-audit.js';
import {
  auditedIdentity,
  describeIdentity,
  identityParameters,
  type Identity,
} from './identity.js';

/**
 * Who one client is, as far as is known by now, and what it may do, for daemons, administrators and
 * the log.
 */
export class ClientProfile {
  private identity: Identity;
  /** The identity that the client has set in place of its own. */
  private assumed: readonly TypedParameter[] | null = null;
  /** Null until its login is over. */
  private rights: Rights | null = null;

  constructor(
    private readonly introduction: ClientIntroduction,
    x509Name: string | null,
  ) {
    this.identity = { local: introduction.local, saslUserName: null, x509Name };
  }

  /**
   * Its login is over: with that it is settled who it is and what it may do, whomever it may speak
   * for later.
   */
  settle(saslUserName: string | null, decide: (client: ProvenClient) => Rights): void {
    this.identity = { ...this.identity, saslUserName };
    const { transport, readOnly, remoteAddress } = this.introduction;
    this.rights = decide({ transport, readOnly, remoteAddress, ...this.identity });
  }

  /** It may only look; so may, in principle, whoever has not logged in. */
  get isReadOnly(): boolean {
    return this.rights?.readOnly !== false;
  }

  /** Only the super user may speak for others. */
  get maySpeakForOthers(): boolean {
    return this.identity.local?.uid === 0;
  }

  speakFor(other: readonly TypedParameter[]): void {
    this.assumed = other;
  }

  get proven(): ProvenIdentity {
    const { saslUserName, x509Name } = this.identity;
    return { saslUserName, x509Name, readOnly: this.isReadOnly };
  }

  /** What daemons are told of whom they serve. */
  get parameters(): readonly TypedParameter[] {
    return this.assumed ?? identityParameters(this.identity);
  }

  /** For log lines. */
  get description(): string {
    const { id, transport, remoteAddress } = this.introduction;
    const who = describeIdentity(this.identity);
    const parts = [transport, remoteAddress, who, describeRights(this.rights)];
    return `client ${id} (${parts.filter(Boolean).join(', ')})`;
  }

  get audited(): AuditedClient {
    const { id, transport, remoteAddress } = this.introduction;
    return {
      client: id,
      transport,
      ...auditedIdentity(this.identity, remoteAddress),
      rights: this.isReadOnly ? 'read-only' : 'read-write',
    };
  }
}

/** Empty for one that may write, or of whom that is not known yet. */
function describeRights(rights: Rights | null): string {
  if (rights?.readOnly !== true) return '';
  return rights.because === null ? 'read-only' : `read-only by ${rights.because}`;
}
