/** A TLS client was turned away; the sentence is for the log. */
export class TlsRefusal extends Error {
  readonly code = 'TLS_REFUSAL';

  /** `level` is info where the primary knows already. */
  constructor(
    message: string,
    readonly level: 'info' | 'warning' = 'warning',
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
