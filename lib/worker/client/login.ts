import { AuthenticationError } from '../../auth/authentication-error.js';
import { matchesAny } from '../../auth/allow-list.js';
import type { SaslExchange, SaslExchangeOptions, SaslLayer } from '../../auth/sasl.js';
import type { ClientIntroduction } from '../../control/messages.js';
import { errorText } from '../../error-text.js';
import { callOf, encodeReply, headerLength, type CallHeader } from '../../rpc/frame.js';
import { encodeErrorReply } from '../../rpc/rpc-error.js';
import {
  authType,
  encodeAuthList,
  encodeInt,
  encodeSaslReply,
  encodeString,
  procedure,
  readSaslStart,
  readSaslStep,
} from '../../rpc/session-messages.js';
import { authenticationFailed } from '../relay/answers.js';

/** What a login needs to know and whom to ask. */
export interface LoginSettings {
  readonly sasl: SaslExchangeOptions;
  /** Globs for SASL user names; null lets any in. */
  readonly allowedUsers: readonly string[] | null;
  /** Asks polkit: null is a yes, else why not. Never resolves when the client leaves. */
  readonly polkit: () => Promise<string | null>;
  /** Told after each step of an exchange, whatever came of it. */
  readonly saslStepped: () => void;
}

/** What a login has shown. */
export interface LoginResult {
  readonly saslUserName: string | null;
  /** What all bytes after the last reply pass through. */
  readonly layer: SaslLayer | null;
}

/** The session that logs in. */
export interface LoginClient {
  answer(frame: Buffer): void;
  loggedIn(result: LoginResult): void;
  /** The login has failed for good; `reason` is for the log. */
  refused(reason: string): void;
}

/** The client's way in, before it may call anything but procedures 66 to 70. One step at a time. */
export class Login {
  private readonly method: ClientIntroduction['auth'];
  private exchange: SaslExchange | null = null;
  private busy = false;
  private isOver = false;

  constructor(
    introduction: ClientIntroduction,
    private readonly settings: () => LoginSettings,
    private readonly client: LoginClient,
  ) {
    // The super user needs nobody's leave; asking polkit would only add a way to fail.
    const { auth, local } = introduction;
    this.method = auth === 'polkit' && local?.uid === 0 ? 'none' : auth;
  }

  /** The client is gone. */
  end(): void {
    this.isOver = true;
    this.exchange?.dispose();
  }

  /** A step is under way, whatever it waits for: the client's answer is for us to give. */
  get isBusy(): boolean {
    return this.busy;
  }

  /** A SASL step is under way. */
  get isSaslStepping(): boolean {
    return this.busy && this.method === 'sasl';
  }

  /** A call of procedures 66 to 70; none while a step is under way. */
  serve(bytes: Buffer, start: number, length: number): void {
    const call = callOf(bytes, start);
    // The payload outlives the chunk: steps are asynchronous.
    const payload = Buffer.from(bytes.subarray(start + headerLength, start + length));
    if (call.procedure === procedure.authList) {
      this.client.answer(encodeReply(call, encodeAuthList([authType[this.method]])));
      if (this.method === 'none') this.client.loggedIn({ saslUserName: null, layer: null });
      return;
    }
    this.busy = true;
    this.step(call, payload).then(
      () => {
        this.busy = false;
      },
      (error: unknown) => {
        if (this.isOver) return;
        this.client.answer(encodeErrorReply(call, authenticationFailed));
        this.client.refused(reasonOf(error));
      },
    );
  }

  private async step(call: CallHeader, payload: Buffer): Promise<void> {
    if (call.procedure === procedure.authPolkit) await this.askPolkit(call);
    else if (this.method !== 'sasl') throw new Error('asked for SASL where it is not offered');
    else if (call.procedure === procedure.authSaslInit) await this.initSasl(call);
    else await this.stepSasl(call, payload);
  }

  private async askPolkit(call: CallHeader): Promise<void> {
    if (this.method !== 'polkit') throw new Error('asked for polkit where it is not offered');
    const refusal = await this.settings().polkit();
    if (refusal !== null) throw new Error(refusal);
    this.client.answer(encodeReply(call, encodeInt(1)));
    this.client.loggedIn({ saslUserName: null, layer: null });
  }

  private async initSasl(call: CallHeader): Promise<void> {
    if (this.exchange !== null) throw new Error('began a second SASL exchange');
    // Loaded by the first who needs it.
    const { SaslExchange } = await import('../../auth/sasl.js');
    const exchange = await SaslExchange.open(this.settings().sasl);
    if (this.isOver) {
      exchange.dispose();
      return;
    }
    this.exchange = exchange;
    this.client.answer(encodeReply(call, encodeString(exchange.mechanisms())));
  }

  private async stepSasl(call: CallHeader, payload: Buffer): Promise<void> {
    const { exchange } = this;
    if (exchange === null) throw new Error('sent SASL data before it asked for the mechanisms');
    const result = await this.advance(exchange, call, payload).finally(this.settings().saslStepped);
    if (this.isOver) return;
    if (result.complete) this.checkUser(exchange);
    this.client.answer(encodeReply(call, encodeSaslReply(result.complete, result.data)));
    if (!result.complete) return;
    this.client.loggedIn({ saslUserName: exchange.userName, layer: exchange.layer });
  }

  private async advance(
    exchange: SaslExchange,
    call: CallHeader,
    payload: Buffer,
  ): ReturnType<SaslExchange['step']> {
    if (call.procedure !== procedure.authSaslStart)
      return exchange.step(readSaslStep(payload).data);
    const { mechanism, data } = readSaslStart(payload);
    return exchange.start(mechanism, data);
  }

  private checkUser({ userName }: SaslExchange): void {
    const { allowedUsers } = this.settings();
    if (allowedUsers === null || matchesAny(allowedUsers, userName)) return;
    throw new AuthenticationError(
      'rejected',
      `SASL user ${userName} is not on sasl_allowed_username_list`,
    );
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof AuthenticationError) return error.detail;
  return errorText(error);
}
