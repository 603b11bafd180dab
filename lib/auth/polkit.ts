/**
 * The question to polkit whether a local client may use a socket.
 * Every answer but a plain yes is a refusal: no bus, no polkitd, an error, a late answer.
 */
import { readFile } from 'node:fs/promises';
import type { DBusError, Message, MessageBus } from 'dbus-native';

/** The actions of libvirt's two sockets, read-only and read-write; conf/polkit declares them. */
export const polkitActions = {
  monitor: 'org.libvirt.unix.monitor',
  manage: 'org.libvirt.unix.manage',
} as const;

export type PolkitAction = (typeof polkitActions)[keyof typeof polkitActions];

/** Why polkit's answer was no; `denied` is the only one that polkit itself decided for good. */
export type PolkitRefusalCode =
  'denied' | 'challenge' | 'no-bus' | 'timeout' | 'cancelled' | 'error';

/** `reason` is a full sentence for the log, never for the client. */
export type PolkitVerdict =
  { authorized: true } | { authorized: false; code: PolkitRefusalCode; reason: string };

export interface PolkitRequest {
  action: PolkitAction;
  /** The peer's process and user as the kernel told them, never as the client claims them. */
  pid: number;
  /** The process's start in clock ticks since boot, field 22 of /proc/PID/stat; above 0. */
  startTime: bigint;
  uid: number;
  /** Milliseconds for the check, typing a password included. */
  timeoutMs: number;
  /** Aborted when the client leaves or its time to log in is over; polkit then ends its dialog. */
  signal: AbortSignal;
}

export interface PolkitAuthorityOptions {
  /** A D-Bus address; default DBUS_SYSTEM_BUS_ADDRESS, else the system bus's well-known path. */
  address?: string;
}

const authority = {
  destination: 'org.freedesktop.PolicyKit1',
  path: '/org/freedesktop/PolicyKit1/Authority',
  interface: 'org.freedesktop.PolicyKit1.Authority',
};
const allowUserInteraction = 1;
const noReplyExpected = 1;

/**
 * dbus-daemon answers a connection's 129th open call with LimitsExceeded (dbus-daemon(1),
 * max_replies_per_connection), so further checks wait here for their turn. Their number is bounded
 * by the clients that are not logged in yet, their time by the time-out.
 */
const maxOpenCalls = 100;

class Refusal extends Error {
  readonly code: PolkitRefusalCode;

  constructor(code: PolkitRefusalCode, reason: string) {
    super(reason);
    this.code = code;
  }
}

/**
 * One process's way to polkit: a single connection to the system bus, opened by the first check and
 * again after it broke. Checks that are open when it breaks are refused.
 */
export class PolkitAuthority {
  readonly #address: string;
  readonly #waiting = new Set<() => void>();
  #openCalls = 0;
  #lastCancellationId = 0;
  #bus: MessageBus | undefined;
  #closed = false;

  constructor(options: PolkitAuthorityOptions = {}) {
    const { DBUS_SYSTEM_BUS_ADDRESS: fromEnvironment } = process.env;
    this.#address =
      options.address ??
      (fromEnvironment ? fromEnvironment : 'unix:path=/run/dbus/system_bus_socket');
  }

  /** Never rejects. Uid 0 is asked for like any other: the caller lets root in without a check. */
  async check(request: PolkitRequest): Promise<PolkitVerdict> {
    const stop = new AbortController();
    const expire = () => stop.abort(new Refusal('timeout', lateReason(request)));
    const leave = () => stop.abort(new Refusal('cancelled', leftReason(request)));
    const expiry = setTimeout(expire, request.timeoutMs);
    request.signal.addEventListener('abort', leave, { once: true });
    if (request.signal.aborted) leave();
    try {
      await confirmSubject(request);
      stop.signal.throwIfAborted();
      await this.#takeTurn(stop.signal);
      try {
        return verdictOf(request, await this.#ask(request, stop.signal));
      } finally {
        this.#endTurn();
      }
    } catch (error) {
      const refusal = this.#refusalOf(request, stop.signal.aborted ? stop.signal.reason : error);
      return { authorized: false, code: refusal.code, reason: refusal.message };
    } finally {
      clearTimeout(expiry);
      request.signal.removeEventListener('abort', leave);
    }
  }

  /**
   * Drops the connection, which would keep the process alive. Open checks are ended by polkitd and
   * refused, like all later ones.
   */
  close(): void {
    this.#closed = true;
    this.#bus?.connection.stream.destroy();
  }

  async #ask(request: PolkitRequest, stop: AbortSignal): Promise<unknown> {
    const bus = await this.#connect(request);
    const cancellationId = String(++this.#lastCancellationId);
    const cancel: Message = {
      ...authority,
      member: 'CancelCheckAuthorization',
      signature: 's',
      body: [cancellationId],
      flags: noReplyExpected,
    };
    const onStop = () => bus.invoke(cancel, { timeout: 1 }, () => undefined);
    stop.addEventListener('abort', onStop, { once: true });
    try {
      return await bus.invoke<unknown>(
        {
          ...authority,
          member: 'CheckAuthorization',
          signature: '(sa{sv})sa{ss}us',
          body: [subjectOf(request), request.action, [], allowUserInteraction, cancellationId],
        },
        { signal: stop, timeout: 0 },
      );
    } finally {
      stop.removeEventListener('abort', onStop);
    }
  }

  async #connect(request: PolkitRequest): Promise<MessageBus> {
    // Loaded at the first check: hosts without polkit pay neither its memory nor its start-up time.
    const { createClient } = await import('dbus-native');
    if (this.#closed) throw new Refusal('cancelled', this.#closedReason(request));
    if (this.#bus) return this.#bus;
    let bus: MessageBus;
    try {
      bus = createClient({
        busAddress: this.#address,
        authMethods: ['EXTERNAL'],
        plainValues: true,
      });
    } catch (error) {
      throw new Refusal('no-bus', this.#noBusReason(request, error));
    }
    const drop = (error?: Error) => {
      if (this.#bus === bus) this.#bus = undefined;
      // Not closed by the library when the handshake or Hello is refused; calls would stay open.
      bus.connection.stream.destroy(error);
    };
    for (const event of ['error', 'handlerError', 'end', 'close']) bus.connection.on(event, drop);
    this.#bus = bus;
    return bus;
  }

  async #takeTurn(stop: AbortSignal): Promise<void> {
    if (this.#openCalls < maxOpenCalls) {
      this.#openCalls++;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        stop.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.delete(go);
        reject(new Error('No turn before the end of the check.'));
      };
      this.#waiting.add(go);
      stop.addEventListener('abort', leave, { once: true });
    });
  }

  #endTurn(): void {
    const [next] = this.#waiting;
    if (!next) {
      this.#openCalls--;
      return;
    }
    this.#waiting.delete(next);
    next();
  }

  #refusalOf(request: PolkitRequest, error: unknown): Refusal {
    if (error instanceof Refusal) return error;
    const { code, cause, dbusName, message } = error as Partial<DBusError> & { code?: string };
    if (code === 'ECONNCLOSED') {
      return this.#closed
        ? new Refusal('cancelled', this.#closedReason(request))
        : new Refusal('no-bus', this.#noBusReason(request, cause));
    }
    const problem = dbusName === undefined ? String(message) : `${dbusName}: ${String(message)}`;
    return new Refusal(
      'error',
      `polkit could not decide on ${describe(request)} (${problem}); see that polkit.service ` +
        `runs and that "pkaction --action-id ${request.action}" knows the action.`,
    );
  }

  #noBusReason(request: PolkitRequest, cause: unknown): string {
    const problem = cause instanceof Error ? cause.message : 'it closed the connection';
    return (
      `polkit cannot be asked about ${describe(request)}, since the system bus at ` +
      `${this.#address} is out of reach (${problem}); start dbus.service, or set auth_unix_ro ` +
      'and auth_unix_rw to something other than "polkit".'
    );
  }

  #closedReason(request: PolkitRequest): string {
    return `polkit is no longer asked about ${describe(request)}, since this process is ending.`;
  }
}

function lateReason(request: PolkitRequest): string {
  return (
    `polkit did not answer within ${request.timeoutMs / 1000} s on ${describe(request)}; see ` +
    'whether polkit.service hangs, or raise login_timeout if users need longer for a password.'
  );
}

function leftReason(request: PolkitRequest): string {
  return `The client went away before polkit had decided on ${describe(request)}.`;
}

function describe({ action, pid, uid }: PolkitRequest): string {
  return `${action} for user ${uid} (process ${pid})`;
}

/** polkit's `unix-process` subject: pid uint32, start-time uint64, uid int32. */
function subjectOf({ pid, startTime, uid }: PolkitRequest): unknown {
  return [
    'unix-process',
    [
      ['pid', ['u', pid]],
      ['start-time', ['t', startTime]],
      ['uid', ['i', uid | 0]],
    ],
  ];
}

/**
 * polkitd takes the uid on trust, and for a start time 0 or a uid -1 it looks up whoever has the
 * pid now. So both must be known, and the process must still be the user's own. The pid cannot pass
 * to another process unnoticed after this: polkitd compares the start time later.
 */
async function confirmSubject(request: PolkitRequest): Promise<void> {
  const { pid, startTime, uid } = request;
  // Checked here, too: a value that does not fit its D-Bus type would break the connection for all.
  const startTimeKnown = startTime !== 0n && BigInt.asUintN(64, startTime) === startTime;
  if (pid <= 0 || !startTimeKnown || uid < 0 || uid >= 0xffff_ffff) {
    throw new Refusal(
      'error',
      `polkit is not asked about ${describe(request)}: the kernel did not tell process, start ` +
        'time and user; is the client in another PID namespace?',
    );
  }
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const uids = /^Uid:\t(.*)$/m.exec(status)?.[1]?.split('\t').map(Number) ?? [];
  if (uids.includes(uid)) return;
  const now = uids.length === 0 ? 'is gone' : `runs as user ${[...new Set(uids)].join(', ')}`;
  throw new Refusal(
    'error',
    `polkit is not asked about ${describe(request)}: the process that connected ${now} now; the ` +
      'client must stay what it was until it is logged in.',
  );
}

/** The reply is (is_authorized, is_challenge, details); only true in the first place is a yes. */
function verdictOf(request: PolkitRequest, reply: unknown): PolkitVerdict {
  const [authorized, challenge] = Array.isArray(reply) ? (reply as unknown[]) : [];
  if (authorized === true) return { authorized };
  if (challenge === true) {
    return {
      authorized: false,
      code: 'challenge',
      reason:
        `polkit wants a password for ${describe(request)}, but no agent can ask for it; run ` +
        "pkttyagent in the user's session, or add a rule in /etc/polkit-1/rules.d.",
    };
  }
  return {
    authorized: false,
    code: 'denied',
    reason:
      `polkit refused ${describe(request)}, by a rule or for want of the password; to allow it ` +
      'add a rule in /etc/polkit-1/rules.d.',
  };
}
