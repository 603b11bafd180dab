import type { ClientIntroduction, ProvenIdentity } from '../../control/messages.js';
import type { TypedParameter } from '../../rpc/typed-parameters.js';
import type { AuditedClient } from '../reports/call-audit.js';
import {
  auditedIdentity,
  describeIdentity,
  identityParameters,
  type Identity,
} from './identity.js';

/** Who one client is, as far as is known by now, for daemons, administrators and the log. */
export class ClientProfile {
  private identity: Identity;
  /** The identity that the client has set in place of its own. */
  private assumed: readonly TypedParameter[] | null = null;

  constructor(
    private readonly introduction: ClientIntroduction,
    x509Name: string | null,
  ) {
    this.identity = { local: introduction.local, saslUserName: null, x509Name };
  }

  /** Its SASL login has shown who it is. */
  learnSaslUser(saslUserName: string | null): void {
    this.identity = { ...this.identity, saslUserName };
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
    return { saslUserName, x509Name };
  }

  /** What daemons are told of whom they serve. */
  get parameters(): readonly TypedParameter[] {
    return this.assumed ?? identityParameters(this.identity);
  }

  /** For log lines. */
  get description(): string {
    const { id, transport, remoteAddress } = this.introduction;
    const who = describeIdentity(this.identity);
    return `client ${id} (${[transport, remoteAddress, who].filter(Boolean).join(', ')})`;
  }

  get audited(): AuditedClient {
    const { id, transport, remoteAddress } = this.introduction;
    return { client: id, transport, ...auditedIdentity(this.identity, remoteAddress) };
  }
}
