import type { RefusalReason } from '../../control/messages.js';

/** A TLS client was turned away; the sentence is for the log. */
export class TlsRefusal extends Error {
  readonly code = 'TLS_REFUSAL';

  /** `refusal` is what the primary counts it as; null where somebody wanted it so. */
  constructor(
    message: string,
    readonly refusal: RefusalReason | null = 'tls',
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Those that are turned away for the sake of others are many, and counted elsewhere. */
  get level(): 'info' | 'warning' {
    return this.refusal === 'tls' ? 'warning' : 'info';
  }
}
