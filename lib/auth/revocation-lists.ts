import type { X509Certificate } from 'node:crypto';
import { certificateFields } from './certificate-fields.js';
import { DerReader, derTag, derTime } from './der.js';

/** A certificate revocation list (RFC 5280, 5.1). */
interface RevocationList {
  /** The encoded name. */
  readonly issuer: Buffer;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | null;
  /** As `CertificateFields.serial`. */
  readonly serials: ReadonlySet<string>;
}

/**
 * The revocation lists in force, judged as GnuTLS judges them for libvirt's daemons: a CA without a
 * list has revoked nothing, a list stays in force after its next update was due, and of several
 * lists of one CA the newest counts. The file is trusted: signatures are not checked.
 *
 * OpenSSL is not given the lists, since it refuses every client as soon as one CA has no list, and
 * since its one verdict would hide a revocation behind an overdue list.
 */
export class RevocationLists {
  readonly #byIssuer = new Map<string, RevocationList>();

  /** `lists` are DER revocation lists. Throws DerError. */
  constructor(lists: readonly Buffer[]) {
    for (const bytes of lists) {
      const list = readRevocationList(bytes);
      const issuer = list.issuer.toString('hex');
      const other = this.#byIssuer.get(issuer);
      if (other === undefined || list.thisUpdate >= other.thisUpdate) {
        this.#byIssuer.set(issuer, list);
      }
    }
  }

  /** When the first of the lists is due to be replaced; null if none says so. */
  get nextUpdate(): Date | null {
    const times = [...this.#byIssuer.values()].flatMap(({ nextUpdate }) => nextUpdate ?? []);
    return times.reduce<Date | null>(
      (first, time) => (first === null || time < first ? time : first),
      null,
    );
  }

  /** Whether there is none, so that nothing is revoked. */
  get none(): boolean {
    return this.#byIssuer.size === 0;
  }

  revoked(certificate: X509Certificate): boolean {
    const { issuer, serial } = certificateFields(certificate.raw);
    return this.#byIssuer.get(issuer.toString('hex'))?.serials.has(serial) ?? false;
  }
}

function readRevocationList(bytes: Buffer): RevocationList {
  const body = new DerReader(bytes).enter(derTag.sequence).enter(derTag.sequence);
  body.optional(derTag.integer); // version
  body.expect(derTag.sequence); // signature algorithm
  const issuer = body.expect(derTag.sequence).encoded;
  const times = [derTag.utcTime, derTag.generalizedTime];
  const thisUpdate = derTime(body.expect(...times));
  const nextUpdate = body.optional(...times);
  const entries = body.optional(derTag.sequence);
  const serials = new Set<string>();
  if (entries !== null) {
    const reader = new DerReader(entries.content);
    while (!reader.done) {
      const entry = reader.enter(derTag.sequence);
      serials.add(entry.expect(derTag.integer).content.toString('hex'));
    }
  }
  return {
    issuer,
    thisUpdate,
    nextUpdate: nextUpdate === null ? null : derTime(nextUpdate),
    serials,
  };
}
