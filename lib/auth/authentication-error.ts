/**
 * Why a client was not let in:
 * - `rejected` wrong password, unknown user, a mechanism that failed
 * - `mechanism` the client chose a mechanism that was not offered
 * - `oversize` more data than the protocol allows
 * - `weak` the negotiated layer is not strong enough
 * - `state` a message out of order, or the exchange was given up
 * - `unavailable` this host's set-up lets nobody in this way
 */
export type AuthenticationFailure =
  'rejected' | 'mechanism' | 'oversize' | 'weak' | 'state' | 'unavailable';

/** A client failed to authenticate. The client learns no more than `message`. */
export class AuthenticationError extends Error {
  override readonly name = 'AuthenticationError';
  readonly code: AuthenticationFailure;
  /** A full sentence about the reason, for the log only. */
  readonly detail: string;

  constructor(code: AuthenticationFailure, detail: string, options?: ErrorOptions) {
    super('authentication failed', options);
    this.code = code;
    this.detail = detail;
  }
}
