import {
  encodeFrame,
  headerLength,
  messageType,
  procedureOf,
  program,
  programOf,
  serialOf,
  status,
  statusOf,
  typeOf,
} from '../../rpc/frame.js';
import { readErrorMessage } from '../../rpc/rpc-error.js';
import { XdrError } from '../../rpc/xdr-reader.js';

const { remote } = program;

/** A daemon answered one of the proxy's own calls with an error; `payload` is its error struct. */
export class DaemonRefusal extends Error {
  readonly code = 'DAEMON_REFUSAL';
  /** Whether there is an error in the payload that can be passed on. */
  readonly isReadable: boolean;

  constructor(readonly payload: Buffer) {
    const words = wordsOf(payload);
    super(words ?? 'an error that cannot be read');
    this.isReadable = words !== null;
  }
}

function wordsOf(payload: Buffer): string | null {
  try {
    return readErrorMessage(payload);
  } catch (error) {
    if (!(error instanceof XdrError)) throw error;
    return null;
  }
}

/**
 * Whether a daemon's answer to one of the proxy's own calls, be it an error, is not what the
 * protocol says.
 */
export function isUnreadable(error: unknown): boolean {
  return error instanceof XdrError || (error instanceof DaemonRefusal && !error.isReadable);
}

interface Question {
  readonly program: number;
  readonly procedure: number;
  readonly serial: number;
  readonly answered: (payload: Buffer) => void;
  readonly failed: (error: Error) => void;
}

/**
 * The proxy's own calls on a connection to a daemon, before the client's calls are relayed: one at
 * a time, since a daemon may serve calls in parallel and each of these needs the one before.
 */
export class DaemonConversation {
  private question: Question | null = null;
  private serial = 0;
  private failure: Error | null = null;

  constructor(private readonly write: (frame: Buffer) => void) {}

  /**
   * Resolves with the reply's payload. Rejects with DaemonRefusal, or with what `fail` was given,
   * be it before.
   */
  ask(procedure: number, payload?: Buffer, program: number = remote): Promise<Buffer> {
    const serial = ++this.serial;
    return new Promise((answered, failed) => {
      this.throwIfFailed();
      this.question = { program, procedure, serial, answered, failed };
      const type = messageType.call;
      this.write(encodeFrame({ program, procedure, serial, type, status: status.ok }, payload));
    });
  }

  /**
   * Takes a frame from the daemon; what does not answer the question is not for anybody and
   * dropped.
   */
  frame(bytes: Buffer, start: number, length: number): void {
    const { question } = this;
    if (
      question === null ||
      programOf(bytes, start) !== question.program ||
      procedureOf(bytes, start) !== question.procedure ||
      typeOf(bytes, start) !== messageType.reply ||
      serialOf(bytes, start) !== question.serial
    ) {
      return;
    }
    this.question = null;
    const payload = Buffer.from(bytes.subarray(start + headerLength, start + length));
    if (statusOf(bytes, start) === status.ok) question.answered(payload);
    else question.failed(new DaemonRefusal(payload));
  }

  /**
   * Ends the conversation: the question under way, if any, and all later ones fail with `error`;
   * the first one counts.
   */
  fail(error: Error): void {
    this.failure ??= error;
    const { question } = this;
    this.question = null;
    question?.failed(this.failure);
  }

  /** Throws what `fail` was given. */
  throwIfFailed(): void {
    if (this.failure !== null) throw this.failure;
  }
}
